"""How one kind of layer turns its input and its output error into an update of its weights.

A rule is closed-form and runs without autograd. It is written once, over an optional leading device
axis: with parameters of shape ``[devices, ...]`` and inputs ``[devices, batch, ...]`` the same lines
train many devices' copies of a layer at once.
"""

from __future__ import annotations

from torch import nn

from fedtp.rules import activation, adaptor, norm, pooling, reshape
from fedtp.rules.activation import Activation
from fedtp.rules.base import Rule
from fedtp.rules.conv import ConvRule
from fedtp.rules.embedding import EmbeddingRule
from fedtp.rules.generic import GenericRule, GenericTail
from fedtp.rules.linear import LinearRule
from fedtp.rules.recurrent import RecurrentRule, recurrent_rules
from fedtp.rules.reshape import Reshape
from fedtp.rules.tail import Tail

RULES: dict[type[nn.Module], type[Rule]] = {
    nn.Linear: LinearRule,
    nn.Conv1d: ConvRule,
    nn.Conv2d: ConvRule,
    nn.Conv3d: ConvRule,
    nn.Embedding: EmbeddingRule,
}
TAILS: dict[type[nn.Module], type[Tail]] = activation.TAILS | norm.TAILS | pooling.TAILS | reshape.TAILS | adaptor.TAILS


def is_tail(layer: nn.Module) -> bool:
    """Whether a layer belongs to the block of the layer before it."""
    return not any(True for _ in layer.parameters()) or (type(layer) in TAILS and not _hooked(layer))


def rule_for(layer: nn.Module) -> Rule:
    """Return the rule that trains `layer`: closed-form where one is known, else autograd in that layer alone."""
    if _hooked(layer):
        return GenericRule(layer)
    if type(layer) in norm.TAILS:
        return norm.NormRule(layer)
    return RULES.get(type(layer), GenericRule)(layer)


def tail_for(layer: nn.Module) -> Tail:
    """Return how errors pass back through a `layer` that follows another in its block."""
    return (GenericTail if _hooked(layer) else TAILS.get(type(layer), GenericTail))(layer)


def _hooked(layer: nn.Module) -> bool:
    """Whether the layer does more than its class says: a pruned one computes its weight in a hook, for example."""
    return bool(layer._forward_pre_hooks or layer._forward_hooks)


__all__ = [
    "Activation",
    "ConvRule",
    "GenericRule",
    "GenericTail",
    "LinearRule",
    "RecurrentRule",
    "Reshape",
    "Rule",
    "Tail",
    "is_tail",
    "recurrent_rules",
    "rule_for",
    "tail_for",
]

"""How one kind of layer turns its input and its output error into an update of its weights.

A rule is closed-form and runs without autograd. It is written once, over an optional leading device
axis: with parameters of shape ``[devices, ...]`` and inputs ``[devices, batch, ...]`` the same lines
train many devices' copies of a layer at once.
"""

from __future__ import annotations

from torch import nn

from fedtp.rules.activation import TAILS, Tail
from fedtp.rules.base import Rule
from fedtp.rules.generic import GenericRule, GenericTail
from fedtp.rules.linear import LinearRule

RULES: dict[type[nn.Module], type[Rule]] = {nn.Linear: LinearRule}


def rule_for(layer: nn.Module) -> Rule:
    """Return the rule that trains `layer`: closed-form where one is known, else autograd in that layer alone."""
    return (GenericRule if _hooked(layer) else RULES.get(type(layer), GenericRule))(layer)


def tail_for(layer: nn.Module) -> Tail:
    """Return how errors pass back through a `layer` without parameters."""
    return (GenericTail if _hooked(layer) else TAILS.get(type(layer), GenericTail))(layer)


def _hooked(layer: nn.Module) -> bool:
    """Whether the layer does more than its class says: a pruned one computes its weight in a hook, for example."""
    return bool(layer._forward_pre_hooks or layer._forward_hooks)


__all__ = ["GenericRule", "GenericTail", "LinearRule", "Rule", "Tail", "rule_for", "tail_for"]

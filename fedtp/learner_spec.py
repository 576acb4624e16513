"""The learner as a choice: what every device of a fleet trains, and how."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, Strict, model_validator

from fedtp.run_config import Settings
from fedtp.settings import Conflict, Problem, literal

Units = Annotated[int, Field(ge=1, le=65_536)]


class LearnerSpec(Settings):
    """A network and the way it learns, in values that fit a TOML table and Flower's run config.

    Parameters
    ----------
    method
        ``"tpsgd"``: each layer learns from its own loss. The others are those of `fedtp.baselines`: ``"backprop"``;
        ``"fa"``, ``"dfa"``, ``"sdfa"`` and ``"drtp"``, whose errors come through random matrices; ``"last"``: the last
        layer alone learns.
    network
        ``"mlp"``; ``"cnn"``, for pictures; ``"recurrent"``, for sequences; see `fedtp.models`.
    hidden
        Width of each hidden layer; none for a linear model. Of a cnn the dense ones; the layers of a recurrent network
        are all of one width.
    channels, kernel
        Of each convolution of a cnn, and how wide and high it is: odd; None means 3.
    cell
        Of a recurrent network, ``"rnn"``, ``"gru"`` or ``"lstm"``; None means a GRU.
    activation
        After each hidden layer; recurrent networks have that of their cell.
    loss
        What a block's output is compared by.
    label_smoothing
        Share of a label that is spread over all classes (cross-entropy). It keeps a device from learning the few
        samples of an order by heart (docs/findings.md).
    space
        Where a hidden block is compared with the label: in ``"label"`` space or in ``"target"`` space, which
        cross-entropy does not have: it compares with labels.
    projection
        How the fixed target projections are drawn.
    readout
        What a hidden block is read through in label space: its projection, ``"fixed"``, or a matrix that starts at it
        and learns from the block's own error. That is a device's own, ``"learnt"``, and stays there between rounds,
        or ``"shared"``: it travels with its block and is averaged with it.
    pretrained
        A safetensors file with the ``state_dict`` that the network begins with; None: drawn from the seed.
    adaptor
        Small layers that learn in place of the network, which is frozen (`fedtp.adaptors.adapt`); ``"none"``: the
        network itself learns.
    adaptor_size
        Units of a bottleneck, or the rank.
    lr, momentum, weight_decay
        As in ``torch.optim.SGD``, the same for every block.
    normalize
        Divide each block's step by the squared norm of its input, and add up the steps of a batch (tpSGD).
    batch_size
        Samples per step.
    epochs
        How many times a device goes over the samples of one order.
    freeze_after_seconds
        From this virtual second on devices predict, but learn no more; None: never.
    detector
        What watches each device's errors for drift.
    seed
        Of the initial weights and the projections; all devices of a fleet share it.

    Examples
    --------
    >>> spec = LearnerSpec(hidden=(64, 32), seed=7)
    >>> config = spec.to_config()
    >>> config["learner.hidden"], config["learner.lr"]
    ('64,32', 1.0)
    >>> LearnerSpec.from_config(config) == spec
    True
    """

    prefix = "learner."

    method: Literal["tpsgd", "backprop", "fa", "dfa", "sdfa", "drtp", "last"] = "tpsgd"
    network: Literal["mlp", "cnn", "recurrent"] = "mlp"
    hidden: Annotated[tuple[Units, ...], Strict(False)] = Field(default=(64,), max_length=100)
    channels: Annotated[tuple[Units, ...], Strict(False)] = Field(default=(), max_length=100)
    kernel: int | None = Field(default=None, ge=1, le=101)
    cell: Literal["rnn", "gru", "lstm"] | None = None
    activation: Literal["relu", "tanh", "sigmoid", "leaky-relu", "gelu", "silu", "elu"] = "tanh"
    loss: Literal["squared", "absolute", "huber", "cosine", "cross-entropy", "binary-cross-entropy", "hinge"] = (
        "cross-entropy"
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    space: Literal["label", "target"] = "label"
    projection: Literal["normal", "uniform", "sign", "orthogonal"] = "normal"
    readout: Literal["fixed", "learnt", "shared"] = "fixed"
    pretrained: str | None = Field(default=None, min_length=1)
    adaptor: Literal["none", "scale-shift", "bottleneck", "low-rank"] = "none"
    adaptor_size: int = Field(default=4, ge=1, le=65_536)
    lr: float = Field(default=1.0, gt=0, le=1e6)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0, le=1e6)
    normalize: bool = True
    batch_size: int = Field(default=10, ge=1, le=1_000_000)
    epochs: int = Field(default=1, ge=1, le=10_000)
    freeze_after_seconds: float | None = Field(default=None, ge=0)
    detector: Literal["adwin", "page-hinkley", "ddm", "hddm-w", "none"] = "adwin"
    seed: int = Field(default=0, ge=0, le=2**63 - 1)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        found = [*self._bad_network(), *self._bad_loss(), *self._bad_method()]
        if found:
            raise Conflict(found)
        return self

    def _bad_network(self) -> Iterator[Problem]:
        for key, network in (("channels", "cnn"), ("kernel", "cnn"), ("cell", "recurrent")):
            value = getattr(self, key)
            if value and self.network != network:
                text = (
                    f'{key} is {literal(value)}, but network is "{self.network}": leave it out, or choose "{network}"'
                )
                yield Problem((key,), text)
        if self.network == "cnn" and not self.channels:
            yield Problem(("channels",), "channels is missing: a cnn has a number of channels for each convolution")
        if self.kernel and self.kernel % 2 == 0:
            yield Problem(("kernel",), f"kernel is {self.kernel}, but must be odd, to keep the size of a picture")
        if self.network == "recurrent" and len(set(self.hidden)) != 1:
            text = f"hidden is {literal(self.hidden)}, but must be one width, repeated for each recurrent layer"
            yield Problem(("hidden",), text)
        if self.network == "recurrent" and self.activation != "tanh":
            text = f'activation is "{self.activation}", but a recurrent network has that of its cell: leave it out'
            yield Problem(("activation",), text)

    def _bad_loss(self) -> Iterator[Problem]:
        if self.space == "target" and self.method != "tpsgd":
            text = (
                f'space is "target", but method is "{self.method}", which compares with labels: choose space = "label"'
            )
            yield Problem(("space",), text)
        elif self.space == "target" and self.loss in ("cross-entropy", "binary-cross-entropy", "hinge"):
            text = f'space is "target", but the loss "{self.loss}" compares with labels: choose '
            yield Problem(("space",), text + 'space = "label", or the loss "squared" or "absolute"')

        if self.label_smoothing and self.loss != "cross-entropy":
            text = (
                f'label_smoothing is {self.label_smoothing:g}, but loss is "{self.loss}": '
                'leave it out, or choose "cross-entropy"'
            )
            yield Problem(("label_smoothing",), text)

    def _bad_method(self) -> Iterator[Problem]:
        if self.readout != "fixed" and (self.method != "tpsgd" or self.space != "label"):
            what = 'space is "target"' if self.method == "tpsgd" else f'method is "{self.method}"'
            text = f'readout is "{self.readout}", but {what}, where no block is read out: choose readout = "fixed"'
            yield Problem(("readout",), text)
        if self.adaptor == "low-rank" and self.method == "fa":
            text = 'adaptor is "low-rank", but method is "fa", which has no feedback for it: choose another of the two'
            yield Problem(("adaptor",), text)

"""How the updates of one block become its new weights: by a weighted mean, or by any Flower strategy."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from operator import itemgetter
from typing import Any, Protocol, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.app.exception import AppExitException
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from fedtp import averaging
from fedtp.blocks import Packed
from fedtp.errors import DataError, FedtpError
from fedtp.streaming.state import State
from fedtp.wire import pack_array

# Flower shows what its own logger and those below it are told.
log = logging.getLogger("flwr.fedtp")


class Aggregation(Protocol):
    """How the updates of one block become its new weights; one with a memory is a `fedtp.streaming.state.Part` too."""

    def __call__(self, current: Packed, updates: Sequence[tuple[Packed, int]]) -> Packed:
        """Return the new weights, given the current ones and each device's with its number of examples."""
        ...


def weighted_mean(current: Packed, updates: Sequence[tuple[Packed, int]]) -> Packed:
    """Average the devices' weights, each in proportion to its examples (FedAvg, McMahan et al. 2017, eq. 3).

    Examples
    --------
    >>> ones = np.ones(2, np.float32)
    >>> weighted_mean(ones, [(ones, 30), (5 * ones, 10)])
    array([2., 2.], dtype=float32)
    """
    return averaging.weighted_mean(updates)


@contextmanager
def _little_to_collect() -> Iterator[None]:
    """Leave what is in memory now out of the search for garbage, which Bulyan begins anew for every update."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class FlowerAggregation:
    """A Flower strategy, run on one block: FedAdam, FedMedian, Krum ... as Flower has them.

    The strategy keeps its own state, so every block has an instance of its own. (Krum may then choose different
    devices for different blocks.)

    Parameters
    ----------
    strategy
        A strategy whose ``aggregate_train`` needs nothing but arrays and numbers of examples.
    """

    def __init__(self, strategy: FedAvg) -> None:
        self.strategy = strategy
        self._round = 0

    def __call__(self, current: Packed, updates: Sequence[tuple[Packed, int]]) -> Packed:
        """Let the strategy aggregate the block; one that fails to, for too few updates say, leaves it as it is."""
        self._round += 1  # FedAdam's first steps depend on it
        # Strategies with a memory learn the current arrays where they configure a round.
        arrays = ArrayRecord({"block": pack_array(current)})
        self.strategy.configure_train(self._round, arrays, ConfigRecord(), _NO_NODES)
        key = self.strategy.weighted_by_key
        replies = [
            Message(
                RecordDict(
                    {
                        "arrays": ArrayRecord({"block": pack_array(weights)}),
                        "metrics": MetricRecord({key: examples}),
                    }
                ),
                dst_node_id=0,
                message_type=MessageType.TRAIN,
            )
            for weights, examples in updates
        ]
        try:
            with _little_to_collect():
                new, _ = self.strategy.aggregate_train(self._round, replies)
        except (AppExitException, ValueError, IndexError, ZeroDivisionError) as error:
            log.warning("%s kept the old weights: %s", type(self.strategy).__name__, error)
            return current
        return current if new is None else new["block"].numpy().astype(np.float32)

    def state(self) -> State:
        """Return how often it was called, and the arrays that the strategy remembers."""
        forms = {key: type(held).__name__ for key, held in vars(self.strategy).items() if type(held).__name__ in _FORMS}
        arrays = {key: _FORMS[form][0](getattr(self.strategy, key)) for key, form in forms.items()}
        return State(arrays, {"round": self._round, "forms": forms})

    def load_state(self, state: State) -> None:
        """Go on where another aggregation by the same strategy was.

        Raises
        ------
        DataError
            If it was by another one.
        """
        done, forms = state.whole("round"), state.record.get("forms")
        if not isinstance(forms, dict) or forms.keys() != state.arrays.keys():
            raise DataError("it does not say what its arrays are")
        for key, form in forms.items():
            if key not in vars(self.strategy) or form not in _FORMS or state.arrays[key].ndim != 1:
                raise DataError(f"Flower's {type(self.strategy).__name__} remembers no {key!r} of such a form")
        self._round = done
        for key, form in forms.items():
            setattr(self.strategy, key, _FORMS[form][1](state.arrays[key].copy()))


#: The forms in which Flower's strategies remember arrays, by the name of the type, with one array in each: that of the
#: block. How to take it out, and how to put it in.
_FORMS: dict[str, tuple[Callable[[Any], NDArray[Any]], Callable[[NDArray[Any]], Any]]] = {
    "ArrayRecord": (lambda held: held["block"].numpy(), lambda array: ArrayRecord({"block": Array(array)})),
    "dict": (itemgetter("block"), lambda array: {"block": array}),
    "list": (itemgetter(0), lambda array: [array]),
}


class _NoNodes:
    """All that a strategy asks of a grid when it configures a round, without nodes."""

    def get_node_ids(self) -> list[int]:
        return []


_NO_NODES = cast("Grid", _NoNodes())


def aggregation_for(name: str, options: Mapping[str, Any]) -> Callable[[], Aggregation]:
    """Return what makes an aggregation for one block.

    Parameters
    ----------
    name
        ``"mean"``, or a strategy of ``flwr.serverapp.strategy`` by the name of its class.
    options
        Keyword arguments of Flower's strategy, those of its own: what all strategies share concerns the choice of
        nodes, which is not theirs here.

    Raises
    ------
    FedtpError
        If there is no such strategy, or it does not take these options.
    """
    if name == "mean":
        return lambda: weighted_mean
    kind = getattr(flower, name, None)
    if not (isinstance(kind, type) and issubclass(kind, FedAvg)):
        raise FedtpError(f'server.strategy is "{name}", but Flower has no such strategy that averages arrays.')

    _check_options(kind, options)

    def make() -> Aggregation:
        # With a minimum of nodes it would wait for them.
        return FlowerAggregation(kind(min_train_nodes=0, min_available_nodes=0, **options))

    try:
        make()
    except (TypeError, ValueError) as error:
        raise FedtpError(f"server.strategy_options do not fit Flower's {name}: {error}") from None
    return make


def _check_options(kind: type[FedAvg], options: Mapping[str, Any]) -> None:
    shared = signature(FedAvg).parameters
    own = {key: option for key, option in signature(kind).parameters.items() if key not in shared}
    for key, value in options.items():
        if key not in own:
            known = f"those of {kind.__name__} are {', '.join(own)}" if own else f"{kind.__name__} has none"
            raise FedtpError(f'server.strategy_options has "{key}", but {known}.')
        default = own[key].default
        if type(value) is not type(default) and not (type(value) is int and type(default) is float):
            raise FedtpError(
                f"server.strategy_options.{key} is {value!r}, but Flower's {kind.__name__} takes "
                f"a value like {default!r} there."
            )

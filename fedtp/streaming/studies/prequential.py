"""One model on one stream: predict each sample, score it, then learn from it, and measure all the while."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedtp.detection import make_detector, worsened
from fedtp.errors import FedtpError, ModelError
from fedtp.measures import Recovery, RecoveryMeter, detection_delays, kappa, kappa_t, match_detections
from fedtp.streaming.studies.models import last_step
from fedtp.streaming.studies.source import Sample

# The curve of a stream has so many windows at most, each of so many samples at least.
_MOST_WINDOWS = 100
_LEAST_SAMPLES = 50


@dataclass(frozen=True)
class Protocol:
    """How a stream is studied, the same for all models.

    Parameters
    ----------
    label_delay
        How many more samples are predicted before the label of one is known.
    detector
        Which detector watches the errors of every model; one of `fedtp.detection.DETECTORS`.
    detection_window
        How many samples after a true drift a detection still counts as one of it.
    """

    label_delay: int = 0
    detector: str = "adwin"
    detection_window: int = 1_000

    def __post_init__(self) -> None:
        if self.label_delay < 0:
            raise ModelError(f"label_delay is {self.label_delay}, but no label is known before its sample.")
        if self.detection_window < 1:
            raise ModelError(f"detection_window is {self.detection_window}, but must be at least 1 sample.")
        make_detector(self.detector)


@dataclass(frozen=True)
class Reaction:
    """A drift that a model found by itself.

    Parameters
    ----------
    sample
        The newest sample that had been predicted when the model reported it, counted from 0.
    rises
        By block, how far its local loss had risen.
    """

    sample: int
    rises: Mapping[str, float]


@dataclass(frozen=True)
class Outcome:
    """What came of one model on one stream.

    Parameters
    ----------
    samples, correct
        How many samples were predicted, and how many rightly.
    kappa, kappa_t
        Agreement beyond chance, and beyond the newest label known; None where undefined.
    cpu_seconds
        The processor's time for predicting and learning.
    state_bytes
        The size of the model after the stream, as River counts it; None where it cannot.
    windows
        Of consecutive windows of the stream: samples, and how many were predicted rightly.
    recoveries
        What became of accuracy after each true drift.
    delays
        For each true drift, how many samples later it was first detected; None if it was not.
    false_alarms
        How many detections belong to no true drift; None where the drifts are not known.
    detections
        The newest sample that had been predicted at each detection, counted from 0.
    reactions
        The drifts that the model itself reported.
    """

    samples: int
    correct: int
    kappa: float | None
    kappa_t: float | None
    cpu_seconds: float
    state_bytes: int | None
    windows: tuple[tuple[int, int], ...]
    recoveries: tuple[Recovery, ...]
    delays: tuple[int | None, ...]
    false_alarms: int | None
    detections: tuple[int, ...]
    reactions: tuple[Reaction, ...]

    @property
    def accuracy(self) -> float:
        """The share of right predictions."""
        return self.correct / self.samples


def prequential(
    model: Any,
    samples: Iterable[Sample],
    length: int,
    drifts: tuple[int, ...] | None = None,
    protocol: Protocol | None = None,
    on_sample: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Study one model on one stream.

    With a label delay of N, the model learns from sample t after it has predicted sample t + N, and before it
    predicts the next. A prediction of None, and any other that is not the label, is an error. Labels that come after
    the last sample are scored and learnt as well.

    Parameters
    ----------
    model
        A fresh classifier of River's kind. Its attribute `drift`, if it has one, is taken for the latest drift that it
        found by itself, a new object for each.
    samples
        ``(features, label)`` each; at least one.
    length
        How many there are, for the windows of the curve.
    drifts
        Which samples, counted from 0, are the first of a new concept; None where that is not known.
    protocol
        How it is done. None means the defaults.
    on_sample
        Is told now and then how many samples were predicted and how many of them are known to be right.

    Raises
    ------
    ModelError
        If the model fails.

    Examples
    --------
    >>> from river import dummy
    >>> outcome = prequential(dummy.NoChangeClassifier(), [({}, label) for label in "aaabbb"], length=6)
    >>> outcome.correct, outcome.kappa_t, outcome.windows
    (4, 0.0, ((6, 4),))
    """
    protocol = protocol or Protocol()
    detector = make_detector(protocol.detector)
    meter = RecoveryMeter(drifts or ())
    per_window = max(_LEAST_SAMPLES, -(-length // _MOST_WINDOWS))
    windows: list[list[int]] = []
    pairs: Counter[tuple[Any, Any]] = Counter()
    pending: deque[tuple[dict[str, Any], Any, Any, bool]] = deque()
    detections: list[int] = []
    reactions: list[Reaction] = []
    own = last_step(model)
    latest_drift = getattr(own, "drift", None)
    newest_label: Any = None
    any_label = False
    predicted = scored = correct = same = 0
    cpu = 0.0

    def settle() -> None:
        """Give the oldest sample that waits for its label that label."""
        nonlocal scored, correct, same, cpu, newest_label, any_label, latest_drift
        x, label, prediction, was_same = pending.popleft()
        right = bool(prediction == label)
        if scored % per_window == 0:
            windows.append([0, 0])
        windows[-1][0] += 1
        windows[-1][1] += right
        scored += 1
        correct += right
        same += was_same
        pairs[label, prediction] += 1
        meter.update(right)
        if detector is not None and worsened(detector, not right):
            detections.append(predicted - 1)
        started = time.process_time()
        try:
            model.learn_one(x, label)
        except Exception as error:
            raise _failed("learn", error, scored - 1) from error
        cpu += time.process_time() - started
        newest_label, any_label = label, True
        found = getattr(own, "drift", None)
        if found is not None and found is not latest_drift:
            latest_drift = found
            reactions.append(Reaction(predicted - 1, dict(getattr(found, "blocks", {}))))

    for x, label in samples:
        started = time.process_time()
        try:
            prediction = model.predict_one(x)
        except Exception as error:
            raise _failed("predict", error, predicted) from error
        cpu += time.process_time() - started
        predicted += 1
        pending.append((x, label, prediction, any_label and bool(newest_label == label)))
        if len(pending) > protocol.label_delay:
            settle()
        if on_sample is not None and predicted % per_window == 0:
            on_sample(predicted, correct)
    while pending:
        settle()
    if not scored:
        raise ModelError("The stream has no samples.")
    delays = detection_delays(drifts or (), detections, protocol.detection_window)
    _, false_alarms = match_detections(drifts or (), detections, protocol.detection_window)
    return Outcome(
        samples=scored,
        correct=correct,
        kappa=kappa(_confusion(pairs)),
        kappa_t=kappa_t(correct, same, scored),
        cpu_seconds=cpu,
        state_bytes=_state_bytes(model),
        windows=tuple((count, right) for count, right in windows),
        recoveries=tuple(meter.recoveries),
        delays=tuple(None if delay is None else int(delay) for delay in delays),
        false_alarms=None if drifts is None or protocol.detector == "none" else false_alarms,
        detections=tuple(detections),
        reactions=tuple(reactions),
    )


def _failed(what: str, error: Exception, sample: int) -> FedtpError:
    """Say which sample a model could not cope with; what is ours says so itself."""
    if isinstance(error, FedtpError):
        return error
    return ModelError(f"It cannot {what} sample {sample:,}: {type(error).__name__}: {error}")


def _confusion(pairs: Mapping[tuple[Any, Any], int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Count labels (rows) against predictions (columns); no prediction is a class of its own."""
    index: dict[Any, int] = {}
    for pair in pairs:
        for name in pair:
            index.setdefault(name, len(index))
    confusion = np.zeros((len(index), len(index)), np.int64)
    for (label, prediction), count in pairs.items():
        confusion[index[label], index[prediction]] += count
    return confusion


def _state_bytes(model: Any) -> int | None:
    try:
        return int(model._raw_memory_usage)
    except Exception:  # a model need not be River's own, and a walk through foreign objects can fail
        return None

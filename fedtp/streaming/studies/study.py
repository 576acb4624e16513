"""A study: several models side by side on one stream, for one or several seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedtp.errors import ModelError
from fedtp.streaming.studies.catalog import open_source
from fedtp.streaming.studies.models import DEFAULTS, Given, Model, models_of, suited
from fedtp.streaming.studies.prequential import Outcome, Protocol, prequential
from fedtp.streaming.studies.result import Run, StudyResult
from fedtp.streaming.studies.source import Source


@dataclass(frozen=True)
class Progress:
    """How far a study has come.

    Parameters
    ----------
    model, seed
        What is running.
    done, total
        Samples predicted so far, and in all, over all models and seeds.
    accuracy
        Of the running model so far.
    """

    model: str
    seed: int
    done: int
    total: int
    accuracy: float


class Study:
    """Several models side by side on one stream.

    Parameters
    ----------
    stream
        The name of a stream, such as ``"rbf-abrupt"`` (see `fedtp.streaming.studies.names`), or a `Source`.
    models
        What to compare; see `models_of`.
    seeds
        What to repeat everything with. A seed is given to the models that take one and to the generator of the samples.
    label_delay, detector, detection_window
        See `Protocol`.

    Raises
    ------
    FedtpError
        If the stream, a model or a setting cannot be used; before any work begins.

    Examples
    --------
    >>> from fedtp.streaming.studies import Study, open_source
    >>> sea = open_source("sea-abrupt").limited(samples=3_000, drift_at=[2_000])
    >>> study = Study(sea, ["no-change", "river.tree.HoeffdingTreeClassifier"], seeds=(1, 2))
    >>> result = study.run()
    >>> result.frames["runs"].select("model", "seed", "correct")["correct"].to_list()[0] < 2_000
    True
    >>> round(result.summary["models"]["HoeffdingTreeClassifier"]["accuracy"]["mean"], 2)
    0.94
    """

    def __init__(
        self,
        stream: str | Source,
        models: Given = DEFAULTS,
        *,
        seeds: Sequence[int] = (1,),
        label_delay: int = 0,
        detector: str = "adwin",
        detection_window: int = 1_000,
    ) -> None:
        if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise ModelError(f"seeds are {tuple(seeds)}, but need one at least, none of them negative and none twice.")
        self.protocol = Protocol(label_delay, detector, detection_window)
        self.source = open_source(stream) if isinstance(stream, str) else stream
        self.models = models_of(models)
        self.seeds = tuple(seeds)

    def run(self, on_progress: Callable[[Progress], None] | None = None) -> StudyResult:
        """Run every model with every seed, one after the other.

        Parameters
        ----------
        on_progress
            Is told how far the study has come, about a hundred times for each run.

        Raises
        ------
        FedtpError
            If a model fails or the stream breaks off with an error.
        """
        length = self.source.length
        pairs = [(seed, model) for seed in self.seeds for model in self.models]
        runs: list[Run] = []
        for number, (seed, model) in enumerate(pairs):

            def show(predicted: int, correct: int, at: int = number, seed: int = seed, name: str = model.name) -> None:
                if on_progress is not None:
                    done, total = at * length + predicted, len(pairs) * length
                    on_progress(Progress(name, seed, done, total, correct / predicted))

            runs.append(Run(model.name, seed, self._run(model, seed, show)))
        return StudyResult(self.source, tuple(self.models), self.seeds, self.protocol, tuple(runs))

    def _run(self, model: Model, seed: int, show: Callable[[int, int], None]) -> Outcome:
        source = self.source
        fresh = suited(model.make(seed), source.binary)
        try:
            return prequential(fresh, source.samples(seed), source.length, source.drifts, self.protocol, show)
        except ModelError as error:
            raise ModelError(f'The model "{model.name}" failed on {source.name} with seed {seed}. {error}') from error

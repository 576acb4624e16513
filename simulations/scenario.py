"""Scenarios: everything a simulation needs, in one TOML file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Self

import tomli_w
from pydantic import Field, Strict, ValidationError, ValidationInfo, field_validator, model_validator

from fedtp.data import AnyConcept, Chain, Identity
from fedtp.data.concepts.concept import Need
from fedtp.data.generators import STREAMS
from fedtp.errors import ScenarioError
from fedtp.learner_spec import LearnerSpec
from fedtp.settings import Path as KeyPath
from fedtp.settings import Problem, alternatives, did_you_mean, dotted, literal, problems
from server.settings import PrivacySpec, ServerSpec, TrustSpec
from simulations.overrides import apply
from simulations.places import Places
from simulations.scenario_file import find, parse, read, shipped, unusable
from simulations.specs import (
    AdaptationTable,
    ArrivalSpec,
    DataSpec,
    DeviceSpec,
    DriftMatrixSpec,
    DriftSpec,
    PartitionSpec,
    RunSpec,
)
from simulations.specs.devices import MOST_DEVICES
from simulations.specs.table import Table, or_conflict

__all__ = ["Scenario", "shipped"]

IMAGES = frozenset({"cifar10", "digits", "mnist"})
ORDERED = frozenset({"elec2", *(name for name, stream in STREAMS.items() if stream.ordered)})
#: Which data sets have what a concept needs, by name: nothing is loaded to check a scenario.
SUITS: Mapping[Need, Callable[[str], bool]] = {
    "": lambda name: True,
    "images": lambda name: name in IMAGES,
    "a table of features": lambda name: name not in IMAGES,
    "a generator": lambda name: name in STREAMS,
    "unordered samples": lambda name: name not in ORDERED,
    "groups of samples": lambda name: name == "spoken-digits",
}
Line = Annotated[str, Field(pattern=r"^[^\r\n]*$", max_length=200, description="one line of at most 200 characters")]


class Scenario(Table):
    """A fleet, its data, what happens to them, and how they learn.

    Parameters
    ----------
    name
        Names the folder of results; a file's stem if the file does not say.
    title
        One line for lists and reports.
    description
        What it shows, in a few lines.
    run, data, partition, arrival, learner, server, trust, privacy, adaptation
        The tables of those names.
    concepts
        Concepts by name. Where `data.initial` is not given, ``"initial"`` is the data as it is.
    drift
        What changes, when, and for whom.
    drift_matrix
        The same as a matrix, instead.
    devices
        The fleet.

    Examples
    --------
    >>> scenario = Scenario.from_toml('''
    ... title = "Ten boards"
    ... [data]
    ... name = "digits"
    ... [[devices]]
    ... class = "pi"
    ... count = 10
    ... ''', overrides=["server.rounds=5"])
    >>> scenario.device_count, scenario.duration_seconds
    (10, 300.0)
    >>> Scenario.from_toml(scenario.to_toml()) == scenario
    True
    """

    name: str = Field(
        default="scenario",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$",
        description="at most 80 letters, digits, dots, dashes and underscores, the first a letter or a digit",
    )
    title: Line
    description: str = Field(default="", max_length=10_000)
    run: RunSpec = RunSpec()
    data: DataSpec
    partition: PartitionSpec = PartitionSpec()
    arrival: ArrivalSpec = ArrivalSpec()
    concepts: dict[str, AnyConcept] = Field(default={}, validate_default=True)
    drift: Annotated[tuple[DriftSpec, ...], Strict(False)] = Field(default=(), max_length=10_000)
    drift_matrix: DriftMatrixSpec | None = None
    learner: LearnerSpec = Field(default=LearnerSpec(), validate_default=True)
    server: ServerSpec = ServerSpec()
    trust: TrustSpec = TrustSpec()
    privacy: PrivacySpec = PrivacySpec()
    adaptation: AdaptationTable = AdaptationTable()
    devices: Annotated[tuple[DeviceSpec, ...], Strict(False)] = Field(min_length=1, max_length=10_000)

    @property
    def duration_seconds(self) -> float:
        """Virtual seconds from the start of the first round to the end of the last."""
        return self.server.duration_seconds

    @property
    def device_count(self) -> int:
        """Devices of all classes together."""
        return sum(group.count for group in self.devices)

    @classmethod
    def load(cls, name_or_path: str | Path, overrides: Sequence[str] = (), seed: int | None = None) -> Self:
        """Read a scenario.

        Parameters
        ----------
        name_or_path
            The name of a shipped scenario, or a TOML file.
        overrides
            Settings as ``key=value``, with dotted keys and TOML values; text needs no quotes.
        seed
            Instead of the scenario's own.

        Raises
        ------
        ScenarioError
            If there is no such scenario or it cannot be run: a line for each problem, which says where it is,
            what stands there, and what is allowed.

        Examples
        --------
        >>> Scenario.load("digits-rotating", ["run.sead=3"])
        Traceback (most recent call last):
        fedtp.errors.ScenarioError: --set run.sead=3: run.sead is not a known key; did you mean "run.seed"?
        """
        path = find(name_or_path)
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("._-")[:80]
        return cls.from_toml(read(path), overrides, seed, source=str(path), name=name or "scenario")

    @classmethod
    def from_toml(
        cls,
        text: str,
        overrides: Sequence[str] = (),
        seed: int | None = None,
        *,
        source: str = "scenario",
        name: str = "scenario",
    ) -> Self:
        """Read a scenario from TOML text that errors call `source`; `name` is its name if it does not say.

        Raises
        ------
        ScenarioError
            As `load` does.
        """
        tables = {"name": name, **parse(text, source)}
        settings = [*overrides, *([] if seed is None else [f"run.seed={seed}"])]
        applied = apply(settings, tables)
        found = {problem.path: problem for problem in unusable(tables)}
        try:
            scenario = cls.model_validate(tables, by_alias=True, by_name=False)
        except ValidationError as error:
            found = {problem.path: problem for problem in problems(error, cls, tables)} | found
        if found:
            raise ScenarioError(Places(source, text, applied).report(list(found.values())))
        return scenario

    def to_toml(self) -> str:
        """Write every setting, defaults and overrides included; reading it gives an equal scenario."""
        tables = self.model_dump(by_alias=True, exclude_none=True)
        if self.learner.seed == self.run.seed:
            del tables["learner"]["seed"]  # so that whoever changes the run's seed changes the learner's
        return tomli_w.dumps(tables)

    @field_validator("concepts")
    @classmethod
    def _has_initial(cls, concepts: dict[str, AnyConcept], info: ValidationInfo) -> dict[str, AnyConcept]:
        default = DataSpec.model_fields["initial"].default
        data = info.data.get("data")
        return {default: Identity(), **concepts} if data is not None and data.initial == default else concepts

    @field_validator("learner")
    @classmethod
    def _shares_seed(cls, learner: LearnerSpec, info: ValidationInfo) -> LearnerSpec:
        run = info.data.get("run")
        if run is None or "seed" in learner.model_fields_set:
            return learner
        return learner.model_copy(update={"seed": run.seed})

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        return or_conflict(
            self,
            [
                *self._bad_concepts(),
                *self._bad_drifts(),
                *self._bad_learner(),
                *self._bad_adaptation(),
                *self._bad_devices(),
                *self._bad_gateways(),
                *self.privacy.conflicts(self.server, self.trust, self.adaptation.server),
            ],
        )

    def _bad_concepts(self) -> Iterator[Problem]:
        data = self.data.name
        for name, concept in self.concepts.items():
            path: KeyPath = ("concepts", name)
            if not re.fullmatch(r"[\w-]{1,64}", name):
                text = f"{dotted(path)} must be named with at most 64 letters, digits, dashes and underscores"
                yield Problem(path, text)
            for link in concept.concepts if isinstance(concept, Chain) else (concept,):
                if not SUITS[link.needs](data):
                    text = f'is "{link.kind}", which needs {link.needs} and does not suit the data set "{data}"'
                    yield Problem((*path, "kind"), f"{dotted(path)}.kind {text}")
        yield from self._unknown_concept(("data", "initial"), self.data.initial)

    def _unknown_concept(self, path: KeyPath, name: str) -> Iterator[Problem]:
        if name not in self.concepts:
            text = f"{dotted(path)} is {literal(name)}, but the concepts are {alternatives(self.concepts)}"
            yield Problem(path, text + did_you_mean(name, self.concepts))

    def _bad_drifts(self) -> Iterator[Problem]:
        for number, drift in enumerate(self.drift):
            for concept in drift.concepts:
                yield from self._unknown_concept(("drift", number, "concept"), concept)
            yield from self._after_end(("drift", number, "at_seconds"), drift.at_seconds)

        for concept in self.drift_matrix.concepts if self.drift_matrix else ():
            yield from self._unknown_concept(("drift_matrix", "concepts"), concept)
        if self.drift_matrix and self.drift:
            yield Problem(("drift_matrix",), "drift_matrix is given, and drift too: leave out one of them")

    def _bad_learner(self) -> Iterator[Problem]:
        if self.learner.freeze_after_seconds is not None:
            yield from self._after_end(("learner", "freeze_after_seconds"), self.learner.freeze_after_seconds)

    def _bad_adaptation(self) -> Iterator[Problem]:
        devices, server = self.adaptation, self.adaptation.server
        chosen: list[tuple[KeyPath, str]] = [
            (("adaptation", "policy"), devices.policy),
            (("adaptation", "server", "reaction"), server.reaction),
        ]
        for path, value in chosen:
            if value != "none" and self.learner.detector == "none":
                text = f'{dotted(path)} is {literal(value)}, but learner.detector is "none", so no drift is ever seen'
                yield Problem(path, f"{text}: choose a detector")
        if devices.blocks == "moved" and (self.learner.method != "tpsgd" or self.learner.space != "label"):
            text = (
                'adaptation.blocks is "moved", but only blocks that learn by tpSGD in label space answer by themselves'
            )
            yield Problem(("adaptation", "blocks"), f'{text}: choose "all" or "last"')
        if server.reaction == "participation" and self.server.fraction == 1:
            text = 'adaptation.server.reaction is "participation", but server.fraction is 1, so all devices take part'
            yield Problem(("adaptation", "server", "reaction"), f"{text}: make it less")

    def _after_end(self, path: KeyPath, seconds: float) -> Iterator[Problem]:
        if seconds >= self.duration_seconds:
            rounds = f"{self.server.rounds} rounds of {self.server.round_seconds:g} seconds"
            end = f"before the end of the run at {self.duration_seconds:g} ({rounds})"
            yield Problem(path, f"{dotted(path)} is {seconds:g}, but must be {end}")

    def _bad_devices(self) -> Iterator[Problem]:
        if not 1 <= self.device_count <= MOST_DEVICES:
            text = f"devices has {self.device_count:,} in all, but must have from 1 to {MOST_DEVICES:,}"
            yield Problem(("devices",), text)

    def _bad_gateways(self) -> Iterator[Problem]:
        if self.run.devices_per_node > 1 and self.server.strategy not in ("mean", "FedAvg"):
            text = f'server.strategy is "{self.server.strategy}", which asks for each device\'s own update, but '
            text += f"run.devices_per_node is {self.run.devices_per_node}: "
            text += 'choose the strategy "mean", or one device per node'
            yield Problem(("server", "strategy"), text)

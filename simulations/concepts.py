"""A data set under each concept of a scenario."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from fedtp.data import DataSet, apply, between
from fedtp.data.concepts import Concept
from simulations.drift import Stage


class Concepts(Mapping[str, DataSet]):
    """A data set under some concepts, by their names.

    Parameters
    ----------
    data
        The data set as it is.
    concepts
        The concepts.
    stages
        Concepts on the way from one of these to another. The data set under each is made when it is first asked for,
        and kept.
    seed
        What noise and the like are drawn from.

    Raises
    ------
    DataError
        If a concept does not suit the data set, or there is nothing on the way.
    """

    def __init__(
        self, data: DataSet, concepts: Mapping[str, Concept], stages: Iterable[Stage] = (), seed: int = 0
    ) -> None:
        self._data = data
        self._seed = seed
        self._concepts = dict(concepts)
        for stage in stages:
            if stage.name not in self._concepts:
                ends = concepts[stage.origin], concepts[stage.concept]
                self._concepts[stage.name] = between(*ends, stage.step / stage.steps)
        self._seen: dict[str, DataSet] = {}
        for name in concepts:
            self[name]

    def __getitem__(self, name: str) -> DataSet:
        if name not in self._seen:
            self._seen[name] = apply(self._concepts[name], self._data, self._seed)
        return self._seen[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._concepts)

    def __len__(self) -> int:
        return len(self._concepts)

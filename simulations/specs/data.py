"""What a fleet learns from, and who holds what of it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from fedtp.data import names
from fedtp.data.catalog import FROM_FILES
from fedtp.data.generators import STREAMS
from fedtp.settings import Problem
from simulations.specs.table import Table, or_conflict


def _known(name: str) -> str:
    if name not in names():
        raise PydanticCustomError("unknown_data_set", "there is no such data set")
    return name


class DataSpec(Table):
    """What the fleet learns from.

    Parameters
    ----------
    name
        A data set or a generator, one of `fedtp.data.names`.
    path
        The folder with the files of a data set that is read from files; None: where the environment says.
    samples
        How many samples are drawn from a generator; None: as many as `fedtp.data.load` draws of itself.
    parameters
        Of the generator, those of River's class.
    test_fraction
        The share of the samples that is held out; None: the data set's own test set, or 0.2 where it has none.
    initial
        The concept that is in force at the start.
    """

    name: Annotated[str, AfterValidator(_known), Field(json_schema_extra={"enum": list(names())})]
    path: str | None = Field(default=None, min_length=1)
    samples: int | None = Field(default=None, ge=10, le=100_000_000)
    parameters: dict[str, bool | int | float | str] = Field(default={})
    test_fraction: float | None = Field(default=None, ge=0.01, le=0.9)
    initial: str = "initial"

    @model_validator(mode="after")
    def _options_belong_to_name(self) -> Self:
        found = []
        if self.path is not None and self.name not in FROM_FILES:
            text = f'path is given, but the data set "{self.name}" is not read from files: leave it out'
            found.append(Problem(("path",), text))
        if self.samples is not None and self.name not in STREAMS:
            text = f'samples is {self.samples}, but the data set "{self.name}" is not drawn: leave it out'
            found.append(Problem(("samples",), text))
        if self.parameters and self.name not in STREAMS:
            text = f'parameters are given, but the data set "{self.name}" is not drawn: leave them out'
            found.append(Problem(("parameters",), text))
        return or_conflict(self, found)


class PartitionSpec(Table):
    """How the samples are dealt out to the devices.

    Parameters
    ----------
    kind
        ``"iid"``, ``"dirichlet"`` (label skew), or ``"interleaved"`` (ordered data: of n devices, device d
        gets the rows d, d + n, d + 2n, ...).
    alpha
        Concentration of the Dirichlet distribution; the smaller, the fewer classes a device sees.
    quantity_sigma
        Arrival rates, and the shares of the data, spread log-normally with this sigma.
    """

    kind: Literal["iid", "dirichlet", "interleaved"] = "iid"
    alpha: float = Field(default=0.5, gt=0, le=1e6)
    quantity_sigma: float = Field(default=0.0, ge=0, le=5)

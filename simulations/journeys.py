"""The ways of orders to their devices and back: how long each part takes, what it costs, and where it breaks off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.devices import Fleet

Floats = NDArray[np.float64]

# The parts of a way, one after the other. What is on its way back needs the device no more.
_THERE, _DOWNLOAD, _COMPUTE, _UPLOAD = range(4)


@dataclass(frozen=True, eq=False)
class Journeys:
    """The parts of many orders' ways, one column each: the order's latency, download, work and upload.

    Parameters
    ----------
    seconds, watts
        How long each part takes, and what the device draws meanwhile, ``[4, orders]``.
    back_seconds
        How long the reply then takes to the server.
    """

    seconds: Floats
    watts: Floats
    back_seconds: Floats

    @classmethod
    def of(
        cls,
        fleet: Fleet,
        devices: NDArray[np.intp],
        *,
        bytes_down: NDArray[np.int64],
        bytes_up: NDArray[np.int64],
        flops: Floats,
        down_factor: Floats,
        up_factor: Floats,
    ) -> Journeys:
        """Work out the ways of orders to devices of a fleet, whose links are faster than usual by factors."""
        nothing = np.zeros(len(devices))
        seconds = [
            fleet.latency_seconds[devices],
            bytes_down / (fleet.down_bytes_per_second[devices] * down_factor),
            flops / fleet.flops_per_second[devices],
            bytes_up / (fleet.up_bytes_per_second[devices] * up_factor),
        ]
        watts = [nothing, fleet.receive_watts[devices], fleet.power_watts[devices], fleet.send_watts[devices]]
        return cls(np.stack(seconds), np.stack(watts), fleet.latency_seconds[devices])

    @property
    def device_seconds(self) -> Floats:
        """How long after it was sent a device has done with an order."""
        total: Floats = self.seconds.sum(0)
        return total

    def until_exhausted(self, joules: Floats) -> Floats:
        """Return how long after it was sent each order has used up so much energy; infinite if it needs less."""
        needed = self.seconds * self.watts
        before = np.cumsum(needed, 0) - needed
        # A part that needs nothing is lived through, unless the energy was at an end before it.
        with np.errstate(over="ignore"):
            share = np.divide(joules - before, needed, out=(joules >= before).astype(float), where=needed > 0)
        lived = (self.seconds * np.clip(share, 0, 1)).sum(0)
        return np.where(needed.sum(0) <= joules, np.inf, lived)

    def until_dropped(self, share: Floats) -> Floats:
        """Return when, after a share of the device's own part of the way, each order would be given up."""
        there: Floats = self.seconds[_THERE]
        return there + share * (self.device_seconds - there)

    def broken_off(self, stop: Floats) -> Spent:
        """Return what ways take that end so many seconds after they began, finished or not."""
        begin = np.cumsum(self.seconds, 0) - self.seconds
        lived = np.clip(stop - begin, 0, self.seconds)
        done = np.divide(lived, self.seconds, out=(stop >= begin).astype(float), where=self.seconds > 0)
        return Spent(
            download_share=done[_DOWNLOAD],
            upload_share=done[_UPLOAD],
            compute_seconds=lived[_COMPUTE],
            transfer_seconds=lived[_DOWNLOAD] + lived[_UPLOAD],
            joules=(lived * self.watts).sum(0),
        )


@dataclass(frozen=True, eq=False)
class Spent:
    """What orders took, one array element each.

    Parameters
    ----------
    download_share, upload_share
        Which share of the order and of the reply crossed the network.
    compute_seconds, transfer_seconds
        How long the device computed, and how long it received and sent.
    joules
        What the device spent.
    """

    download_share: Floats
    upload_share: Floats
    compute_seconds: Floats
    transfer_seconds: Floats
    joules: Floats

"""What is checked of a device's update before it is used. Nothing a device sends is believed."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from flwr.app import Message

from fedtp.errors import WireError
from fedtp.wire import Report

#: Codes of errors that stand for messages which a grid refused unread.
OVERSIZED, INCOMPLETE, UNREADABLE = 8_001, 8_002, 8_003
_REFUSED = {OVERSIZED: "size", INCOMPLETE: "incomplete", UNREADABLE: "unreadable"}
#: So much is kept of what a device says of its own error.
_LONGEST_WORDS = 500


def check_update(message: Message, sizes: Mapping[str, int], digest: str, ordered: Collection[str]) -> Report:
    """Return the report in a reply, if everything in it is as it must be.

    Parameters
    ----------
    message
        The reply of a device.
    sizes
        How many numbers each block of the network holds, by name.
    digest
        Of the projections that the server's devices share.
    ordered
        Names of the blocks that the device was asked to train.

    Raises
    ------
    WireError
        If the device answered with an error, or the update has a missing or extra key, a wrong dtype or shape, a
        number that is not finite, an impossible count, or was made with other projections. Its `reason` is a short
        name for counting.
    """
    if message.has_error():
        said = " ".join(str(message.error.reason)[:_LONGEST_WORDS].split())
        if message.error.code in _REFUSED:
            raise WireError(_REFUSED[message.error.code], f"its message was not taken: {said}")
        raise WireError("device error", f"the device reports: {said}")
    report = Report.from_records(message.content)
    if report.digest != digest:
        raise WireError("digest", f"its projections have digest {report.digest}, ours {digest}")
    if unknown := set(report.trainable) - set(sizes):
        raise WireError("extra block", f"the network has no blocks {sorted(unknown)}")
    for name, weights in report.weights.items():
        if name not in sizes:
            raise WireError("extra block", f"the network has no block {name!r}")
        if name not in ordered:
            raise WireError("extra block", f"block {name!r} was not ordered")
        if weights.size != sizes[name]:
            raise WireError("shape", f"block {name!r} has {weights.size} numbers instead of {sizes[name]}")
        # One number that is not finite makes the sum so, and a sum is the cheapest pass over them all. Finite
        # numbers may overflow it too, and weights of that size are as useless.
        with np.errstate(over="ignore", invalid="ignore"):
            total = np.add.reduce(weights)
        if not np.isfinite(total):
            raise WireError("not finite", f"block {name!r} holds NaN, infinity or numbers near them")
    return report

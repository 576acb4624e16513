"""The errors that fedtp raises on purpose, each with a message meant for a person."""

from __future__ import annotations


class FedtpError(Exception):
    """Something a person can put right: the message says what was wrong, where, and what to do.

    The command line prints the message alone and exits with code 2.
    """


class DataError(FedtpError):
    """A data set that is missing, unreadable or not of the expected form."""


class ScenarioError(FedtpError):
    """A scenario, or a setting of one, that cannot be run."""


class ModelError(FedtpError, ValueError):
    """A model, a batch or a setting that the learner cannot work with."""


class BudgetError(FedtpError):
    """A device's budget that makes no sense, or is too small to take part."""


class WireError(FedtpError):
    """A message that does not hold what it must; `reason` is a short name for counting."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[1])

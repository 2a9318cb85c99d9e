"""The one error tree of nas_edge.

    NasEdgeError            anything this package raises on purpose; one line, with what to do next
    |-- UsageError          the request is wrong (exit code 2)
    |   |-- ConfigError     a setting is unknown, missing or out of range
    |   |-- DataError       the data cannot be used
    |   |   `-- BadImagesError  some of it cannot be read, and may be left out
    |   `-- SpaceError      an architecture, decision or space that does not exist
    |-- TrainingError       the loss is no longer a number
    |-- ExportError         a model could not be converted, or is not what its label says
    |-- InfeasibleError     no architecture meets the limit on this device
    |-- TargetMissedError   what was delivered does not meet the hard limit (exit code 3)
    |-- TargetUnknownError  whether it does is not known (exit code 4)
    |-- RunError            the run folder cannot be used or written
    |   `-- UnreliableLatencyError  what the bench says cannot be used; the run can be continued
    `-- StoppedError        the user stopped it (exit code 130)

A candidate that fails is not an error but a recorded outcome (see `device_agents.api.Verdict`); a broken bench raises
`device_agents.errors.DeviceError`.
"""

from __future__ import annotations

from device_agents.errors import in_one_line


class NasEdgeError(Exception):
    """Base of this package's errors; its text is one line: `WHAT; expected E, received R; FIX`.

    Attributes:
        exit_code: what the command line ends with.
        what: what is wrong.
        expected: what would have been right; None where that is not to be told.
        received: what was there instead; likewise.
        fix: what to do about it; likewise.
    """

    exit_code = 1

    def __init__(
        self, what: str = "", *, expected: str | None = None, received: str | None = None, fix: str | None = None
    ) -> None:
        super().__init__(in_one_line(what, expected, received, fix))
        self.what, self.expected, self.received, self.fix = what, expected, received, fix


class UsageError(NasEdgeError):
    """The request itself is wrong."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting is unknown, missing or out of range."""


class DataError(UsageError):
    """The data cannot be used."""


class BadImagesError(DataError):
    """Images or records that cannot be read; they may be left out."""


class SpaceError(UsageError):
    """An architecture, decision or space that does not exist."""


class TrainingError(NasEdgeError):
    """Training diverged."""


class ExportError(NasEdgeError):
    """A model could not be converted, or is not what its label says."""


class InfeasibleError(NasEdgeError):
    """No architecture meets the limit on this device."""


class TargetMissedError(NasEdgeError):
    """What was found or delivered does not meet the hard limit; raised by the command line only."""

    exit_code = 3


class TargetUnknownError(NasEdgeError):
    """Whether what was found or delivered meets the hard limit is not known; raised by the command line only."""

    exit_code = 4


class RunError(NasEdgeError):
    """The run folder cannot be used or written."""


class UnreliableLatencyError(RunError):
    """The latencies of a run cannot be used, through no fault of its candidates; it can be continued.

    Attributes:
        verdict: of the last of them, a `device_agents.api.Verdict`.
    """

    def __init__(self, problem: str, verdict: str) -> None:
        super().__init__(problem)
        self.verdict = verdict


class StoppedError(NasEdgeError):
    """The user stopped it."""

    exit_code = 130

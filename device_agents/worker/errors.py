"""The error classes; the tree is drawn in `device_agents.errors`."""

from __future__ import annotations


def in_one_line(what: str, expected: str | None = None, received: str | None = None, fix: str | None = None) -> str:
    """The form of all messages: `WHAT; expected E, received R; FIX`, without what is not known."""
    facts = ", ".join(
        [
            *([] if expected is None else [f"expected {expected}"]),
            *([] if received is None else [f"received {received}"]),
        ]
    )
    return "; ".join(part for part in (what, facts, fix) if part)


class DeviceError(Exception):
    """Base of every error raised by `device_agents`; its text is one line, see `in_one_line`.

    Attributes:
        what: What is wrong.
        expected: What would have been right; None where that is not to be told.
        received: What was there instead; likewise.
        fix: What to do about it; likewise.
    """

    def __init__(
        self, what: str = "", *, expected: str | None = None, received: str | None = None, fix: str | None = None
    ) -> None:
        super().__init__(in_one_line(what, expected, received, fix))
        self.what, self.expected, self.received, self.fix = what, expected, received, fix


class DeviceAddressError(DeviceError):
    """The address names no device this version can open."""


class DeviceUnavailableError(DeviceError):
    """The device is known but cannot be reached, started or used any more."""


class BenchFailedError(DeviceUnavailableError):
    """The device answers, but what measures there (the tool, a file on it) does not work."""


class SpecError(DeviceError):
    """Measuring settings that make no sense."""


class ModelError(DeviceError):
    """A model or its inputs do not work on the device.

    Attributes:
        verdict: The value of the `Verdict` that `measure` would have reported.
    """

    def __init__(
        self,
        what: str = "",
        verdict: str = "load_failed",
        *,
        expected: str | None = None,
        received: str | None = None,
        fix: str | None = None,
    ) -> None:
        super().__init__(what, expected=expected, received=received, fix=fix)
        self.verdict = verdict


class ModelFileError(ModelError):
    """The bytes are not a usable TFLite file."""


class WorkerError(DeviceError):
    """The program on the device misbehaved."""


class ProtocolError(WorkerError):
    """A message from the other side is malformed."""

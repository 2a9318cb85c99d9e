"""The error classes; the tree is drawn in `device_agents.errors`."""

from __future__ import annotations


class DeviceError(Exception):
    """Base of every error raised by `device_agents`."""


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

    def __init__(self, message: str, verdict: str = "load_failed") -> None:
        super().__init__(message)
        self.verdict = verdict


class ModelFileError(ModelError):
    """The bytes are not a usable TFLite file."""


class WorkerError(DeviceError):
    """The program on the device misbehaved."""


class ProtocolError(WorkerError):
    """A message from the other side is malformed."""

"""The error tree of `device_agents`.

A candidate model that fails is a result (`api.Measurement` with a verdict); an
exception means that the bench itself, or the way it was asked, is broken.

    DeviceError
    |-- DeviceAddressError      the address names no device this version can open
    |-- DeviceUnavailableError  the device is known but cannot be reached or started
    |   `-- BenchFailedError    it answers, but the tool or a file on it does not work
    |-- SpecError               measuring settings that make no sense
    |-- ModelError              `run()` was given a model or inputs that do not work
    |   `-- ModelFileError      the bytes are not a usable TFLite file
    `-- WorkerError             the program on the device misbehaved
        `-- ProtocolError       a message from the other side is malformed

The classes stand in `worker.errors` because the worker is also copied to boards
on its own.
"""

from device_agents.worker.errors import (
    BenchFailedError,
    DeviceAddressError,
    DeviceError,
    DeviceUnavailableError,
    ModelError,
    ModelFileError,
    ProtocolError,
    SpecError,
    WorkerError,
    in_one_line,
)

__all__ = [
    "BenchFailedError",
    "DeviceAddressError",
    "DeviceError",
    "DeviceUnavailableError",
    "ModelError",
    "ModelFileError",
    "ProtocolError",
    "SpecError",
    "WorkerError",
    "in_one_line",
]

"""A device that answers with recorded measurements, after as long as they took.

For rehearsing a search and for testing whatever stands above a device: queues, overlap,
sharing. Models are recognised by the SHA-256 of their bytes.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents.api import BenchmarkSpec, DeviceAgent, DeviceInfo, Measurement, Verdict
from device_agents.errors import DeviceAddressError, DeviceError, ModelError
from device_agents.scheme import Scheme
from device_agents.wording import words_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCHEMA_VERSION = 1


class ReplayAgent(DeviceAgent):
    """Replays measurements.

    Args:
        info: The device that was recorded.
        recorded: Measurements by `model_key`.
        service_s: Seconds each answer takes; None for what the recording says.
        sleep: Waits for so many seconds; tests may pass something quicker.
    """

    recorded = True

    def __init__(
        self,
        info: DeviceInfo,
        recorded: Mapping[str, Measurement],
        service_s: float | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._info = info
        self._recorded = dict(recorded)
        self._service_s = service_s
        self._sleep = sleep

    @classmethod
    def from_file(cls, path: str | Path) -> ReplayAgent:
        """Reads what `write_recording` wrote.

        Raises:
            DeviceAddressError: If the file cannot be read or is malformed.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            if data["schema"] != SCHEMA_VERSION:
                raise ValueError(f"expected schema {SCHEMA_VERSION}, received {data['schema']!r}")
            recorded = {k: Measurement.from_json(v) for k, v in data["measurements"].items()}
            info = DeviceInfo(**{**data["device"], "address": f"replay:{path}"})
        except OSError as error:
            raise DeviceAddressError(
                f"Cannot read the recording {path} of replay:{path}: {error.strerror or error}"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError, DeviceError) as error:
            raise DeviceAddressError(
                f"{path} is not a recording of measurements ({words_of(error)})",
                expected="the JSON that write_recording wrote",
            ) from error
        return cls(info, recorded)

    def info(self) -> DeviceInfo:
        """See `DeviceAgent`."""
        return self._info

    def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        """See `DeviceAgent`."""
        measurement = self._recorded.get(model_key(model))
        if measurement is None:
            return Measurement(Verdict.LOAD_FAILED, "this model is not in the recording")
        self._sleep(measurement.busy_s if self._service_s is None else self._service_s)
        return measurement

    def run(self, model: bytes, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """See `DeviceAgent`."""
        raise ModelError("A recording holds times, not outputs", fix="run the model on a real device")

    def close(self) -> None:
        """See `DeviceAgent`."""


def model_key(model: bytes) -> str:
    """Returns the name under which a model is recorded."""
    return hashlib.sha256(model).hexdigest()


def write_recording(path: str | Path, info: DeviceInfo, recorded: Mapping[str, Measurement]) -> None:
    """Writes measurements by `model_key` for `ReplayAgent.from_file`."""
    device = {name: getattr(info, name) for name in DeviceInfo.__dataclass_fields__}
    data = {
        "schema": SCHEMA_VERSION,
        "device": {**device, "measures_on_host": False},
        "measurements": {key: m.to_json() for key, m in recorded.items()},
    }
    Path(path).write_text(json.dumps(data), encoding="utf-8")


SCHEMES = (
    Scheme(
        name="replay",
        form="replay:TIMES.json",
        what="recorded times, answered in real time",
        open=ReplayAgent.from_file,
        problem=lambda rest: "" if rest else "a file must follow 'replay:'",
        rest_is_file=True,
    ),
)

"""Simulated latencies of designs that specify their accelerator: `accelerator`, for `--joint accelerator`.

Its answers are `simulated`, never `measured`, and include area and energy. It claims no device's milliseconds unless a
calibration shows that it ranks networks as that device does, see `accelerators/calibration.py`.
"""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from device_agents.api import Verdict
from nas_edge.accelerators.calibration import Calibration, calibrate
from nas_edge.accelerators.simulator import VERSION
from nas_edge.errors import ConfigError
from nas_edge.joint.accelerator import AcceleratorSpace
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.latency.model_file import SpaceRecord, read_model
from nas_edge.latency.settings import LatencySettings
from nas_edge.latency.source import Candidate, LatencySource, resolve
from nas_edge.networks.precisions import Precision
from nas_edge.spaces.decisions import SearchSpace


class AcceleratorLatencySettings(LatencySettings):
    """Settings of `accelerator`."""

    tells: ClassVar[tuple[str, ...]] = ("relative_area", "energy_mj")

    source: str = "accelerator"
    calibration: str | None = Field(
        None,
        min_length=1,
        description="file of nas-edge latency fit for the space, measured on a device like the baseline",
    )

    @property
    def text(self) -> str:
        """`accelerator`."""
        return self.source


class AcceleratorSource(LatencySource):
    """Answers with simulated latencies.

    Args:
        space: knows the accelerator of each design.
        factor: that simulated latencies are multiplied by.
        calibrated: to which device, and how well; None without a calibration.
    """

    def __init__(self, space: AcceleratorSpace, factor: float = 1.0, calibrated: str | None = None) -> None:
        self._space, self._factor = space, factor
        self._calibrated = calibrated or "not calibrated: its milliseconds are not those of any device"

    @property
    def name(self) -> str:
        """The simulator's name, and what its milliseconds are."""
        return f"accelerator simulator {VERSION} ({self._calibrated})"

    def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
        """See `LatencySource`; networks from outside the space run on the baseline."""
        future: Future[LatencyAnswer] = Future()
        resolve(future, self._simulate(candidate))
        return future

    def _simulate(self, candidate: Candidate) -> LatencyAnswer:
        simulated = self._space.simulate(candidate.design)
        area = float(simulated.area[0])
        if area > self._space.max_area:
            detail = f"the accelerator has an area of {area:.3g}, above joint.max_area"
            return LatencyAnswer.failed(LatencyKind.SIMULATED, Verdict.FALLBACK, detail)
        latency_ms = self._factor * float(simulated.latency_ms[0])
        further = {name: float(values[0]) for name, values in simulated.other_usage.items()}
        return LatencyAnswer.estimated(LatencyKind.SIMULATED, latency_ms, further=further)


def open_accelerator(
    settings: AcceleratorLatencySettings, space: SearchSpace, precision: Precision
) -> AcceleratorSource:
    """The simulator for a search.

    Raises:
        ConfigError: for a space whose designs have no accelerator, another precision than int8, or a calibration that
            does not allow the simulator to claim milliseconds.
    """
    if not isinstance(space, AcceleratorSpace):
        raise ConfigError(
            f"latencies from the accelerator simulator require designs with an accelerator, which {space.name} does "
            "not have",
            fix="--joint accelerator",
        )
    if precision != "int8":
        raise ConfigError(
            "the accelerator simulator times int8 networks only", received=precision, fix="--precision int8"
        )
    if settings.calibration is None:
        return AcceleratorSource(space)
    device, found = _calibration(Path(settings.calibration), space)
    if found.refusal:
        raise ConfigError(
            f"latency.calibration={settings.calibration}: {found.refusal}",
            fix="leave it out: designs are then compared without claiming milliseconds",
        )
    return AcceleratorSource(space, found.factor, f"calibrated to {device}: {found}")


def _calibration(path: Path, space: AcceleratorSpace) -> tuple[str, Calibration]:
    """The device of a latency file, and how its latencies compare with those simulated on the baseline."""
    file, asked = read_model(path), SpaceRecord.of(space.networks)
    told = file.provenance.space
    if told is None or told.decisions != asked.decisions or told.input_shape != asked.input_shape:
        raise ConfigError(
            f"{path} has no latencies of networks of {space.networks.name} at this input size",
            fix="run nas-edge latency fit on the device with the space of the search",
        )
    if file.provenance.precision not in (None, "int8"):
        raise ConfigError(
            f"{path} has latencies of another precision", expected="int8", received=file.provenance.precision
        )
    simulated, measured = [], []
    for one in file.measurements:
        if one.latency_ms is not None and one.verdict in (Verdict.OK.value, Verdict.CORRECTED.value):
            network = space.networks.build(space.networks.parse(one.architecture))
            simulated.append(float(space.simulate(network).latency_ms[0]))
            measured.append(one.latency_ms)
    return file.provenance.device or path.name, calibrate(simulated, measured)

"""`--precision auto` of an export: the fastest precision on the device that keeps the accuracy budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from device_agents.api import Measurement, MeasureRequest
from nas_edge.config import RunConfig
from nas_edge.errors import ExportError
from nas_edge.formatting import ms_text
from nas_edge.hardware import HARDWARE
from nas_edge.hardware.gate import check_file
from nas_edge.latency.device import DeviceSource
from nas_edge.networks.precisions import PRECISIONS, Precision
from nas_edge.progress import Reporter
from nas_edge.stages.context import final_spec
from nas_edge.tasks.base import Metric

AUTO = "auto"


@dataclass(frozen=True)
class TriedPrecision:
    """What came of one precision.

    Attributes:
        precision: its name.
        quality: on validation images, in the task's metric; None where it could not be converted.
        latency_ms: measured; None where it was not.
        size_bytes: of the file; likewise.
        why_not: why it was not chosen; "" for the one that was.
    """

    precision: Precision
    quality: float | None = None
    latency_ms: float | None = None
    size_bytes: int | None = None
    why_not: str = ""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def line(self, metric: Metric) -> str:
        """For the user."""
        if self.quality is None:
            return f"{self.precision}: {self.why_not}"
        why = f" ({self.why_not})" if self.why_not else ", chosen"
        return f"{self.precision}: {metric.name} {metric.text(self.quality)}, {ms_text(self.latency_ms)} ms{why}"


def fastest_precision(
    config: RunConfig,
    metric: Metric,
    device: DeviceSource,
    make: Callable[[Precision], bytes],
    quality: Callable[[bytes], float],
    reporter: Reporter,
    measure: Callable[[Sequence[MeasureRequest]], Sequence[Measurement]] | None = None,
) -> tuple[TriedPrecision, ...]:
    """Converts a network to every precision, measures all that keep the budget, and chooses.

    Args:
        config: of the export: its hardware and its accuracy budget are read.
        metric: of the task.
        device: what measures.
        make: converts the network.
        quality: of a file, on validation images, so that test images choose nothing.
        reporter: what the user sees.
        measure: files side by side; None for `device.measure_files`.

    Returns:
        What came of each precision, the chosen one first.

    Raises:
        ExportError: when none can be measured.
    """
    files, tried = _try_all(config, metric, make, quality)
    whole = final_spec(config, device)
    with reporter.stage("measuring precisions", len(files)) as show:
        found = (measure or device.measure_files)([(file, whole) for file in files.values()])
        show(len(files))
    for precision, measured in zip(files, found, strict=True):
        one, best_ms = tried[precision], measured.best_ms
        why = "slower" if best_ms is not None else f"could not be measured: {measured.verdict}"
        tried[precision] = TriedPrecision(precision, one.quality, best_ms, one.size_bytes, why)
    timed = [one for one in tried.values() if one.latency_ms is not None]
    if not timed:
        raise ExportError("no precision could be chosen: " + "; ".join(one.line(metric) for one in tried.values()))
    chosen = min(timed, key=lambda one: (one.latency_ms, one.size_bytes))
    best = TriedPrecision(chosen.precision, chosen.quality, chosen.latency_ms, chosen.size_bytes)
    ordered = (best, *(one for one in tried.values() if one is not chosen))
    for one in ordered:
        reporter.say(one.line(metric))
    return ordered


def _try_all(
    config: RunConfig, metric: Metric, make: Callable[[Precision], bytes], quality: Callable[[bytes], float]
) -> tuple[dict[Precision, bytes], dict[Precision, TriedPrecision]]:
    """The files worth measuring, and what is known of every precision."""
    hardware = config.export.profile or HARDWARE["cpu"]
    files: dict[Precision, bytes] = {}
    tried: dict[Precision, TriedPrecision] = {}
    for precision in ("float32", *(name for name in PRECISIONS if name != "float32")):
        try:
            file = make(precision)
            check = check_file(file, hardware, precision)
        except ExportError as error:
            tried[precision] = TriedPrecision(precision, why_not=str(error))
            continue
        value = quality(file)
        real = value if precision == "float32" else tried["float32"].quality
        why = "" if check.passed else str(check)
        if not why and (real is None or not real - value <= config.export.accuracy_budget):
            why = f"costs more than the budget of {metric.text(config.export.accuracy_budget)}"
        tried[precision] = TriedPrecision(precision, value, None, len(file), why)
        if not why:
            files[precision] = file
    return files, tried

"""Every latency source keeps what sources promise, and so does every wrapper around one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from device_agents.api import BenchmarkSpec
from device_agents.host import HostAgent
from nas_edge.latency.cache import CachedSource, MeasuringKey
from nas_edge.latency.device import DeviceSource
from nas_edge.latency.retry import RetryingSource
from nas_edge.latency.source import LatencySource
from nas_edge.latency.table import open_table
from nas_edge.testing import check_latency_source
from tests.support.candidates import SPACE
from tests.support.sources import FunctionSource, timed


def device(_: Path) -> LatencySource:
    quick = {"min_runs": 6, "min_duration_s": 0.0, "max_duration_s": 0.1}
    return DeviceSource([HostAgent()], "int8", BenchmarkSpec(**quick, max_relative_half_width=10.0, max_risk=1.0))


def table(folder: Path) -> LatencySource:
    file = folder / "table.json"
    file.write_text('{"schema_version": 1, "input_shape": [12, 12, 3], "bias_ms": 2.0, "terms": []}')
    return open_table(str(file), SPACE)


def retrying(_: Path) -> LatencySource:
    return RetryingSource(FunctionSource(lambda _: timed(1.0)))


def cached(folder: Path) -> LatencySource:
    key = MeasuringKey("int8", "device", "litert", "settings")
    return CachedSource(FunctionSource(lambda _: timed(1.0)), folder / "cache.sqlite", key)


@pytest.mark.parametrize("make", [device, table, retrying, cached])
def test_sources_conform(make: Callable[[Path], LatencySource], tmp_path: Path) -> None:
    check_latency_source(lambda: make(tmp_path), SPACE)

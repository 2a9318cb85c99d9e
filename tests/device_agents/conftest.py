"""Fixtures: one warm host agent, a spec that is over quickly, the folder of real files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agents.api import BenchmarkSpec, DeviceInfo
from device_agents.host import HostAgent
from tests.support import requirements
from tests.support.data import DATA


@pytest.fixture(scope="session")
def agent() -> Iterator[HostAgent]:
    with HostAgent() as host:
        yield host


@pytest.fixture
def spec() -> BenchmarkSpec:
    """A handful of runs; steadiness is not asked for, since test machines are busy."""
    return BenchmarkSpec(
        min_runs=6,
        max_runs=12,
        min_duration_s=0.0,
        max_duration_s=0.1,
        warmup_min_duration_s=0.0,
        warmup_max_duration_s=0.01,
        max_attempts=1,
        timeout_s=30.0,
    )


@pytest.fixture
def info() -> DeviceInfo:
    return DeviceInfo(
        address="host:",
        kind="host",
        model="CPU",
        soc="x86_64",
        cores=2,
        memory_bytes=2**30,
        os="Linux 6.1",
        runtime="ai_edge_litert",
        runtime_version="2.3.0",
    )


@pytest.fixture
def coral() -> Path:
    requirements.check("data")
    return DATA / "coral"

"""Before a search, one network says whether the device tells what is asked of it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from device_agents.api import Measurement
from nas_edge.config import load_config
from nas_edge.errors import ConfigError
from nas_edge.progress import Reporter
from nas_edge.stages.searching import check_resources
from tests.support.sources import FunctionSource, timed
from tests.support.spaces import tiny_space


def context(limit: str, measurement: Measurement) -> Any:
    """What the check asks of a run; its device is a stand-in that answers with the measurement."""
    device = FunctionSource(lambda candidate: measurement)
    config = load_config("demo", settings=[f"target.limits={{{limit}: 10}}"])
    bench = SimpleNamespace(devices=[device])
    return SimpleNamespace(config=config, space=tiny_space(), bench=bench, reporter=Reporter(Console(quiet=True)))


def test_a_device_that_does_not_tell_its_energy_ends_the_search_at_once() -> None:
    silent = replace(timed(1.0), energy_note="this machine has no energy counters")
    with pytest.raises(ConfigError, match=r"energy_mj is not available: this machine has no .* \(on a function\)"):
        check_resources(context("energy_mj", silent))
    check_resources(context("energy_mj", replace(silent, energy_mj=2.0)))


def test_nothing_is_measured_for_what_follows_from_the_file() -> None:
    asked = context("file_size_bytes", timed(1.0))
    check_resources(asked)
    assert asked.bench.devices[0].asked == []

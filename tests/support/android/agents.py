"""Fixtures for the tests of agents, which import them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from device_agents.android.adb_shell_transport import AdbShellTransport
from device_agents.android.agent import AndroidAgent, AndroidSettings
from device_agents.android.benchmark_model import BLOCKS
from device_agents.api import BenchmarkSpec
from tests.support.android.phone import Phone
from tests.support.android.tools import canned_script, transcript, write_tool

Connect = Callable[..., AndroidAgent]


@pytest.fixture
def fast_spec(spec: BenchmarkSpec) -> BenchmarkSpec:
    return spec.replace(max_relative_half_width=10.0, target_relative_half_width=10.0, min_runs=BLOCKS)


@pytest.fixture
def connect(phone: Phone, tmp_path: Path) -> Iterator[Connect]:
    """Makes agents whose tool prints a transcript."""
    made: list[AndroidAgent] = []

    def connect(name: str = "tf_2_14", port: int = 0, **options: object) -> AndroidAgent:
        script = options.pop("script", None) or canned_script(transcript(name), float(options.pop("seconds", 0.0)))  # type: ignore[arg-type]
        tool = write_tool(tmp_path / f"tool{len(made)}", str(script))
        link = AdbShellTransport.tcp("127.0.0.1", port or phone.port)
        made.append(AndroidAgent(link, AndroidSettings(tool=tool, **options), sleep=lambda s: None))  # type: ignore[arg-type]
        return made[-1]

    yield connect
    for agent in made:
        agent.close()

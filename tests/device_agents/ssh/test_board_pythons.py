"""Boards with Pythons of their own: the oldest one that the worker runs on, and Debian's for 64-bit Arm, emulated.

What computes is a real TFLite runtime of that Python and architecture; its times mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from device_agents.api import BenchmarkSpec
from device_agents.devices import open_device
from device_agents.ssh.address import read_address
from device_agents.ssh.board import Board
from tests.support import models
from tests.support.requirements import board_python
from tests.support.ssh import SshServer, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SPEC = BenchmarkSpec(
    min_runs=3, min_duration_s=0.0, max_duration_s=0.1, max_relative_half_width=100.0, max_wait_share=9, patience_s=0.0
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[SshServer]:
    with serving(tmp_path_factory.mktemp("ssh"), home) as server:
        yield server


@pytest.mark.parametrize(
    ("name", "version", "machine", "runtime"),
    [
        pytest.param("board_python", (3, 9), "", "tflite_runtime", marks=pytest.mark.needs("board_python")),
        pytest.param("aarch64_python", (3, 11), "aarch64", "", marks=pytest.mark.needs("aarch64_python")),
    ],
)
def test_a_board_with_a_python_of_its_own_measures_and_computes_the_same(
    server: SshServer, name: str, version: tuple[int, int], machine: str, runtime: str
) -> None:
    address = f"{server.address.partition('?')[0]}?python={board_python(name)}"
    with Board(read_address(address.removeprefix("ssh:"))) as board:
        facts = board.examine()
    assert facts.version[:2] <= version
    assert machine in facts.machine
    with open_device(address) as agent:
        assert runtime in agent.info().runtime
        model = models.conv_model(layers=2, channels=8, side=16)
        assert agent.measure(model, SPEC).samples_ms
        assert not agent.measure(b"TFL3" * 100, SPEC).samples_ms
        image = np.random.default_rng(0).random((1, 16, 16, 8), np.float32)
        (found,) = agent.run(model, [image])
        with open_device("host:") as here:
            (expected,) = here.run(model, [image])
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

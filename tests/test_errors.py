"""Errors tell what was expected, what was received and the fix, as attributes and in one line of one form."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from device_agents.api import BenchmarkSpec
from device_agents.errors import DeviceError, ModelError, SpecError
from nas_edge.config import load_config
from nas_edge.errors import ConfigError, NasEdgeError, RunError
from nas_edge.runs.run import Run


@pytest.mark.parametrize("kind", [NasEdgeError, DeviceError, ModelError])
@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ({}, "it broke"),
        ({"expected": "a"}, "it broke; expected a"),
        ({"received": "b"}, "it broke; received b"),
        ({"expected": "a", "received": "b"}, "it broke; expected a, received b"),
        ({"expected": "a", "received": "b", "fix": "mend it"}, "it broke; expected a, received b; mend it"),
        ({"fix": "mend it"}, "it broke; mend it"),
    ],
)
def test_the_line_is_made_of_the_parts(kind: Any, parts: dict[str, str], line: str) -> None:
    error = kind("it broke", **parts)
    assert str(error) == line
    assert (error.what, error.expected, error.received, error.fix) == (
        "it broke",
        *(parts.get(name) for name in ("expected", "received", "fix")),
    )
    assert str(pickle.loads(pickle.dumps(error))) == line


def test_a_part_alone_is_a_line() -> None:
    assert str(SpecError(expected="a number")) == "expected a number"


def test_a_damaged_file_tells_its_parts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(RunError) as caught:
        Run.open(tmp_path)
    assert (caught.value.expected, caught.value.received) == ("an object", "list")


def test_a_setting_is_refused_once_with_what_was_received() -> None:
    with pytest.raises(SpecError) as caught:
        BenchmarkSpec(threads=0)
    assert caught.value.received == "0"
    with pytest.raises(ConfigError, match=r"^device\.threads: .* must be a whole number from 1 to \d+; received 0$"):
        load_config("smoke", settings=["device.threads=0"])

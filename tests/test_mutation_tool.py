"""`tools/mutation.py` on a small package with a test that notices mistakes, and one that does not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "mutation.py"
MODULE = '''
"""Says 1 + 1."""

from __future__ import annotations


def next_of(value: int | None) -> int:
    """Returns 1 + 1."""
    if value < 0:
        raise ValueError("expected 0 or more, received " + str(value - 1))
    words = "is next to " + str(value)
    print(f"{value + 1} {words}")
    return value + 1
'''
MISTAKES = ["< 0  ->  <= 0", "0  ->  1", "value + 1  ->  value - 1", "1  ->  2"]
STRONG = """
import pytest
from toy.strong import next_of


def test_strong():
    assert [next_of(0), next_of(1)] == [1, 2]
    with pytest.raises(ValueError):
        next_of(-1)
"""
WEAK = "from toy.weak import next_of\n\n\ndef test_weak():\n    next_of(3)\n"
ROOMS = """
rooms:
- {modules: [toy/strong.py], tests: [test_strong.py]}
- {modules: [toy/*.py], tests: [test_weak.py]}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "toy").mkdir()
    files = {"toy/strong.py": MODULE, "toy/weak.py": MODULE, "test_strong.py": STRONG, "test_weak.py": WEAK}
    for name, content in {**files, "rooms.yaml": ROOMS, "setup.cfg": "[tool:pytest]\n"}.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    return tmp_path


def lines_of(project: Path, *options: str) -> list[str]:
    command = [sys.executable, str(TOOL), "--rooms", "rooms.yaml", *options]
    return subprocess.run(command, cwd=project, check=True, capture_output=True, text=True).stdout.splitlines()


def figures_of(lines: list[str]) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(lines[-1])
    return figures


@pytest.mark.slow
def test_a_test_that_notices_kills_and_one_that_does_not_lets_survive(project: Path) -> None:
    lines = lines_of(project)
    survivors = [line.split(": ", 2)[2] for line in lines if line.startswith("survived:")]
    assert all("toy/weak.py" in line for line in lines if line.startswith("survived:"))
    assert sorted(survivors) == sorted(MISTAKES)
    figures = figures_of(lines)
    assert [figures[name] for name in ("mutants", "killed", "timeouts", "survived")] == [8, 4, 0, 4]
    assert figures["share_killed"] == 0.5
    assert 0.15 < figures["lower_95"] < 0.25
    assert figures["pass"] is False
    assert (project / "toy/strong.py").read_text(encoding="utf-8") == MODULE

    # Only what survived is tried again, with the tests there are by then.
    (project / "test_weak.py").write_text(STRONG.replace("strong", "weak"), encoding="utf-8")
    assert figures_of(lines_of(project))["killed"] == 4
    lines = lines_of(project, "--again")
    assert figures_of(lines)["killed"] == 8
    assert sum(line.startswith("killed ") for line in lines) == 4


def test_mutants_are_drawn_by_seed_and_are_no_messages(project: Path) -> None:
    first, same, other = (lines_of(project, "--list", "--seed", seed) for seed in ("1", "1", "2"))
    assert first == same != other
    assert sorted(first) == sorted(other)
    assert sorted(line.split(": ", 1)[1] for line in first) == sorted(2 * MISTAKES)
    assert lines_of(project, "--list", "--seed", "1", "--sample", "3") == first[:3]
    only = lines_of(project, "--list", "--seed", "1", "--only", "*weak*")
    assert only == [line for line in first if "weak" in line]


def test_tests_that_fail_without_a_mistake_end_it(project: Path) -> None:
    (project / "test_weak.py").write_text("def test_weak():\n    assert False\n", encoding="utf-8")
    with pytest.raises(subprocess.CalledProcessError) as failure:
        lines_of(project)
    assert "tests fail without any mistake: test_weak.py" in failure.value.stderr

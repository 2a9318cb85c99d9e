"""Claim: related published systems that nas_edge offers work end to end on this host.

For each system, the published numbers are reproduced; a smoke search with it, from the command line, delivers a network
in less than two minutes; and every operator of the delivered file is in its hardware profile.

    python -m benchmarks.relatives [--quick] [--system NAME ...]

`--quick` runs only the first search of each system. There is a verdict only if all systems are run. To add a system,
add an entry to `SYSTEMS`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas_edge.errors import NasEdgeError
from nas_edge.hardware import HARDWARE
from nas_edge.hardware.gate import check_file
from nas_edge.networks.analysis import analyze
from nas_edge.spaces.reference import reference_network

MOST_S = 120.0


@dataclass(frozen=True)
class Golden:
    """A published number.

    Attributes:
        name: what is counted.
        published: the number.
        find: computes the number here.
        within: relative tolerance.
    """

    name: str
    published: float
    find: Callable[[], float]
    within: float = 0.02


def costs(network: str, parameters: float, macs: float) -> tuple[Golden, Golden]:
    """The published parameters and multiply-adds of a reference network."""
    return (
        Golden(f"{network}, parameters", parameters, lambda: analyze(reference_network(network)).parameters),
        Golden(f"{network}, multiply-adds", macs, lambda: analyze(reference_network(network)).macs),
    )


@dataclass(frozen=True)
class System:
    """One related system.

    Attributes:
        golden: published numbers.
        searches: arguments after `nas-edge search --preset smoke`, by name; the quick form runs the first.
        hardware: the profile that must have all operators of the delivered file.
    """

    golden: tuple[Golden, ...]
    searches: Mapping[str, tuple[str, ...]]
    hardware: str


_MNAS = ("--space", "mnas", "--hardware", "edgetpu")

SYSTEMS = {
    "mnas": System(
        golden=(
            *costs("mnasnet-a1", 3.89e6, 311.6e6),
            *costs("mnasnet-b1", 4.38e6, 314.4e6),
            *costs("mnasnet-small", 2.03e6, 68e6),
        ),
        searches={
            "one-shot": _MNAS,
            "multi-trial": (*_MNAS, "--method", "multi-trial", "--set", "search.steps=4"),
        },
        hardware="edgetpu",
    ),
}


def golden_figures(golden: Sequence[Golden]) -> dict[str, Any]:
    """Each published number with the one computed here, and whether they agree."""
    rows: dict[str, Any] = {}
    for one in golden:
        found = one.find()
        passes = abs(found / one.published - 1) <= one.within
        rows[one.name] = {"found": found, "published": one.published, "pass": passes}
    return rows


def search_figures(arguments: Sequence[str], hardware: str, folder: Path) -> dict[str, Any]:
    """One search from the command line: its duration, and problems of the delivered file.

    Args:
        arguments: see `System.searches`.
        hardware: see `System.hardware`.
        folder: new, for the run.
    """
    # Whether a limit is met is not the subject of this benchmark.
    command = ["search", "--preset", "smoke", *arguments, "--limit", "none", "--out", str(folder)]
    began_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "nas_edge.cli", *command],
        env={"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    row: dict[str, Any] = {"s": round(time.monotonic() - began_s, 1), "exit_code": done.returncode}
    file = folder / "bundle" / "model_int8.tflite"
    if done.returncode or not file.is_file():
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        return {**row, "pass": False, "reason": said[0] if said else "no output"}
    try:
        check = check_file(file.read_bytes(), HARDWARE[hardware])
    except NasEdgeError as error:
        return {**row, "pass": False, "reason": str(error)}
    row |= {"operators": check.operators, "problems": [str(problem) for problem in check.problems]}
    return {**row, "pass": check.passed and row["s"] < MOST_S}


def system_figures(system: System, quick: bool, folder: Path) -> dict[str, Any]:
    """The figures of one system."""
    golden = golden_figures(system.golden)
    searches = {
        name: search_figures(arguments, system.hardware, folder / name)
        for name, arguments in list(system.searches.items())[: 1 if quick else None]
    }
    passes = all(row["pass"] for row in (*golden.values(), *searches.values()))
    return {"golden": golden, "searches": searches, "pass": passes}


def figures(systems: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The last line: a verdict if every system was run."""
    found = {"benchmark": "relatives", "systems": dict(systems), "target_s": MOST_S}
    failed = [name for name, of_system in systems.items() if not of_system["pass"]]
    if failed:
        return {**found, "pass": False, "failed": failed}
    left_out = [name for name in SYSTEMS if name not in systems]
    if left_out:
        return {**found, "pass": None, "reason": f"{left_out[0]} was left out"}
    return {**found, "pass": True}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the figures, the last line as JSON; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one search of each system")
    parser.add_argument("--system", dest="systems", action="append", choices=list(SYSTEMS), help="may be repeated")
    given = parser.parse_args(arguments)
    systems: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in given.systems or SYSTEMS:
            folder = Path(temporary) / name
            folder.mkdir()
            systems[name] = system_figures(SYSTEMS[name], given.quick, folder)
            print(f"{name}: {json.dumps(systems[name])}", flush=True)
    found = figures(systems)
    print(json.dumps(found))
    return 1 if found["pass"] is False else 0


if __name__ == "__main__":
    raise SystemExit(main())

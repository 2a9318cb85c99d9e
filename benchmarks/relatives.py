"""Claim: related published systems that nas_edge offers work end to end on this host.

For each system, the published numbers are reproduced; a smoke search with it, from the command line, delivers a network
in less than two minutes; and every operator of the delivered file is in its hardware profile. For `scale` the two
minutes are for the search and for scaling its network together.

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

from nas_edge.accelerators.enumeration import fastest_within
from nas_edge.accelerators.simulator import simulate
from nas_edge.accelerators.space import accelerators, all_accelerators, baseline
from nas_edge.errors import NasEdgeError, RunError
from nas_edge.hardware import HARDWARE
from nas_edge.hardware.gate import check_file
from nas_edge.networks.analysis import analyze
from nas_edge.rewards import Objective
from nas_edge.runs.result import read_result
from nas_edge.runs.run import Run
from nas_edge.runs.targets import TargetGroup
from nas_edge.spaces import find_space
from nas_edge.spaces.reference import reference_network
from nas_edge.testing.mnasnet import mnasnet_a1

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


def parameters(network: str, published: float) -> Golden:
    """The published parameters of a reference network."""
    return Golden(f"{network}, parameters", published, lambda: analyze(reference_network(network)).parameters)


def multiply_adds(network: str, published: float) -> Golden:
    """Likewise."""
    return Golden(f"{network}, multiply-adds", published, lambda: analyze(reference_network(network)).macs)


@dataclass(frozen=True)
class System:
    """One related system.

    Attributes:
        golden: published numbers.
        searches: arguments after `nas-edge search --preset smoke`, by name; the quick form runs the first.
        hardware: the profile that must have all operators of the delivered file.
        scaled: whether the network found is then scaled, by `nas-edge scale`, to twice its latency.
    """

    golden: tuple[Golden, ...]
    searches: Mapping[str, tuple[str, ...]]
    hardware: str = "cpu"
    scaled: bool = False


def gain_of_best_accelerator() -> float:
    """How much faster MnasNet-A1 without gates is on the fastest accelerator of the baseline's area, as a share."""
    network = mnasnet_a1(gates=False)
    every = simulate(network, all_accelerators())
    best = fastest_within(every, [Objective("relative_area", 1.0)])
    return float(1 - every.latency_ms[best] / simulate(network, accelerators([baseline()])).latency_ms[0])


def size_of_macro_space() -> float:
    """How many architectures the macro space of ENAS has."""
    return float(find_space("enas-macro")(32, 1.0, 10, 3).size)


_MNAS = ("--space", "mnas", "--hardware", "edgetpu")
_MULTI_TRIAL = ("--method", "multi-trial", "--set", "search.steps=2")

SYSTEMS = {
    "mnas": System(
        golden=(
            parameters("mnasnet-a1", 3.89e6),
            multiply_adds("mnasnet-a1", 311.6e6),
            parameters("mnasnet-b1", 4.38e6),
            multiply_adds("mnasnet-b1", 314.4e6),
            parameters("mnasnet-small", 2.03e6),
            multiply_adds("mnasnet-small", 68e6),
        ),
        searches={
            "one-shot": _MNAS,
            "multi-trial": (*_MNAS, *_MULTI_TRIAL),
        },
        hardware="edgetpu",
    ),
    "lstm": System(
        golden=(),
        searches={
            "one-shot": ("--controller", "lstm"),
            "multi-trial": (*_MULTI_TRIAL, "--controller", "lstm"),
        },
    ),
    "enas": System(
        golden=(Golden("architectures of the macro space", 1.6e29, size_of_macro_space),),
        searches={
            "macro, one-shot": ("--space", "enas-macro", "--controller", "lstm:enas-macro"),
            "micro, one-shot": ("--space", "enas-micro", "--controller", "lstm:enas-micro"),
        },
    ),
    "joint accelerator": System(
        golden=(
            Golden("accelerators", 50_000, lambda: len(all_accelerators()), within=0),
            Golden("MnasNet-A1 is faster on the best accelerator", 0.32, gain_of_best_accelerator),
        ),
        searches={"alternating": ("--joint", "accelerator", "--target-ms", "0.01")},
        hardware="edgetpu",
    ),
    "joint deployment": System(
        golden=(),
        searches={"multi-trial": (*_MULTI_TRIAL, "--joint", "deployment")},
    ),
    "scale": System(
        golden=(
            *(
                parameters(f"efficientnet-lite{number}", millions * 1e6)
                for number, millions in enumerate((4.7, 5.4, 6.1, 8.2, 13.0))
            ),
        ),
        searches={"one-shot": ()},
        hardware="edgetpu",
        scaled=True,
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


def run_command(*arguments: str) -> None:
    """One command, to its end.

    Raises:
        RunError: when it fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", "nas_edge.cli", *arguments],
        env={"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise RunError(f"exit code {done.returncode}: {said[0] if said else 'no output'}")


def deliver(arguments: Sequence[str], scaled: bool, folder: Path) -> Path:
    """Searches, and where asked for scales; returns the folder of the run with the delivered network.

    Raises:
        RunError: when there is none.
    """
    # Whether a limit is met is not the subject of this benchmark.
    run_command("search", "--preset", "smoke", *arguments, "--limit", "none", "--out", str(folder))
    if not scaled:
        return folder
    result = read_result(Run.open(folder))
    if result is None or result.latency_ms is None:
        raise RunError("this host is too busy for a quiet latency")
    run_command("scale", str(folder), "--target-ms", f"{2 * result.latency_ms:.3f}", "--candidates", "1")
    return TargetGroup.open(folder / "scaled").runs()[0][1]


def search_figures(arguments: Sequence[str], system: System, folder: Path) -> dict[str, Any]:
    """One search from the command line: its duration, and problems of the delivered file.

    Args:
        arguments: see `System.searches`.
        system: that it is of.
        folder: new, for the run.
    """
    began_s = time.monotonic()
    try:
        delivered = deliver(arguments, system.scaled, folder)
    except RunError as error:
        return {"s": round(time.monotonic() - began_s, 1), "pass": False, "reason": str(error)}
    row: dict[str, Any] = {"s": round(time.monotonic() - began_s, 1)}
    try:
        check = check_file((delivered / "bundle" / "model_int8.tflite").read_bytes(), HARDWARE[system.hardware])
    except NasEdgeError as error:
        return {**row, "pass": False, "reason": str(error)}
    row |= {"operators": check.operators, "problems": [str(problem) for problem in check.problems]}
    return {**row, "pass": check.passed and row["s"] < MOST_S}


def system_figures(system: System, quick: bool, folder: Path) -> dict[str, Any]:
    """The figures of one system."""
    golden = golden_figures(system.golden)
    searches = {
        name: search_figures(arguments, system, folder / name)
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

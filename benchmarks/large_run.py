"""Claim: with 10,000 trials in its folder, a run is listed, asked for other targets and reported in less than 5 s each.

The folder is made by the code that writes real ones, with made-up numbers; the commands are run as a user runs them,
each in a process of its own, start-up included. Two processors are what they may use.

    python -m benchmarks.large_run [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.synthetic_run import make_run

TRIALS, QUICK_TRIALS = 10_000, 2_000
PROCESSORS = 2
REPEATS = 3
TARGET_S = 5.0


def main() -> None:
    """Makes a large run and times the commands that look at it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_TRIALS} trials instead of {TRIALS}")
    trials = QUICK_TRIALS if parser.parse_args().quick else TRIALS
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:PROCESSORS])
    with tempfile.TemporaryDirectory(prefix="large_run.") as name:
        run = make_run(Path(name) / "runs" / "large", trials)
        megabytes = run.path("journal.jsonl").stat().st_size / 1e6
        print(f"{trials} trials, a journal of {megabytes:.0f} MB")
        commands = {
            "runs": ["runs", str(run.folder.parent)],
            "select": ["select", str(run.folder), "--target-ms", "0.8,1,1.2"],
            "report": ["report", str(run.folder)],
        }
        seconds = {command: [timed_s(*arguments) for _ in range(REPEATS)] for command, arguments in commands.items()}
    for command, times_s in seconds.items():
        print(f"nas-edge {command}: {', '.join(f'{time_s:.2f}' for time_s in times_s)} s")
    medians_s = {f"{command}_s": statistics.median(times_s) for command, times_s in seconds.items()}
    figures = {
        "benchmark": "large_run",
        "trials": trials,
        "journal_mb": megabytes,
        "processors": PROCESSORS,
        **medians_s,
        "targets": dict.fromkeys(medians_s, TARGET_S),
        "pass": max(medians_s.values()) <= TARGET_S,
    }
    print(json.dumps(figures))


def timed_s(*arguments: str) -> float:
    """Seconds of wall time that `nas-edge ARGUMENTS` takes."""
    start_s = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "nas_edge.cli", *arguments], capture_output=True, text=True, check=False
    )
    time_s = time.perf_counter() - start_s
    if done.returncode:
        raise SystemExit(f"nas-edge {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}")
    return time_s


if __name__ == "__main__":
    main()

"""Real interference: a program that streams memory, on and off in a random two-state pattern.

    with streaming(core=0, megabytes=128) as interference:
        interference.start(quiet_share=0.4, staying=0.5, seed=1)
        ...
        interference.stop()

The pattern goes in steps of `STEP_S`: with the probability `staying` the state stays
as it is, otherwise it is drawn anew.

On another core it contends for caches and memory with what is measured, where the machine's cores share them. Where
they share too little, it can take turns with it on the measured core: in slices far shorter than a run, so that every
run is slowed, and emptying the core's own cache in between.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

STEP_S = 0.1
_PROGRAM = """
import json, os, random, select, sys, time
import numpy as np

os.sched_setaffinity(0, [int(sys.argv[1])])
values = int(sys.argv[2]) << 17  # float64 in so many MiB, halved for source and target
source, target = np.ones(values // 2), np.zeros(values // 2)
chunk = 1 << 19
step_s, turn_s = float(sys.argv[3]), float(sys.argv[4])
if turn_s:
    chunk = 1 << 15
    try:
        os.nice(-5)  # wakes at once; who may not, disturbs a little less
    except OSError:
        pass
print("ready", flush=True)

def told():
    ready, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(ready)

for line in sys.stdin:
    order = json.loads(line)
    if order is None:
        continue
    rng = random.Random(order["seed"])
    quiet = rng.random() < order["quiet_share"]
    at = 0
    while not told():
        if rng.random() >= order["staying"]:
            quiet = rng.random() < order["quiet_share"]
        end = time.perf_counter() + step_s
        if quiet:
            time.sleep(step_s)
            continue
        while time.perf_counter() < end:
            target[at : at + chunk] = source[at : at + chunk]
            at = (at + chunk) % (values // 2)
            if turn_s:
                time.sleep(turn_s)
"""


class Interference:
    """Tells the streaming program what to do."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(self, quiet_share: float, staying: float, seed: int) -> None:
        """Streams from now on in a pattern that is quiet in such a share of its steps."""
        self._tell({"quiet_share": quiet_share, "staying": staying, "seed": seed})

    def stop(self) -> None:
        """Streams no more."""
        self._tell(None)

    def _tell(self, order: dict[str, float] | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()


@contextmanager
def streaming(core: int, megabytes: int, turn_s: float = 0.0) -> Iterator[Interference]:
    """Yields what controls a program that streams so much memory on a core; it ends with the block.

    Args:
        core: Where it runs.
        megabytes: How much it streams.
        turn_s: How long it sleeps between two slices, for the measured core; 0 never.
    """
    with obeying(_PROGRAM, core, megabytes, STEP_S, turn_s) as process:
        yield Interference(process)


@contextmanager
def obeying(program: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Yields a Python program that obeys its stdin, once it has said that it is ready; it ends with the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield process
    finally:
        process.kill()
        process.communicate()

"""Claim: a search that is killed at any moment and continued ends as one that nothing happened to.

A child process searches a tiny space, with latencies that are a function of the network, cached and journalled as in
any run. It is killed with SIGKILL after a random time, another continues, until the search is done; then the next
search begins, until enough have been killed. Every finished search must have the journal, the rewards, the weights, the
optimiser, the controller, the record of how its policy converged and the stored measurements bit-identical to those of
the uninterrupted one, and a network whose latency was stored must not have been asked for again.

    python -m benchmarks.crash_resume [--quick]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import select
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from device_agents.api import Measurement, Verdict
from nas_edge.config import RunConfig, load_config
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.cache import CachedSource, MeasuringKey
from nas_edge.latency.source import Candidate, LatencySource
from nas_edge.networks.analysis import analyze
from nas_edge.quiet import held_stderr
from nas_edge.rewards import Objective
from nas_edge.runs.run import Run
from tests.support.batches import SeededBatches
from tests.support.searches import one_shot_search
from tests.support.spaces import tiny_space

KILLS, QUICK_KILLS = 200, 20
STEPS = 240
# Longer than a search takes from its first step, which compiles, to its last, so that some are killed at the very end.
LONGEST_S = 1.2
# So many are killed while they start: loading, recovering, putting weights back, compiling.
STARTING_SHARE, LONGEST_START_S = 0.2, 2.0
APPENDS = 500
TARGET_APPEND_MS = 1.0


class FunctionSource(LatencySource):
    """A latency that follows from the network; each question is noted in a file."""

    def __init__(self, log: Path) -> None:
        self._log = log

    @property
    def name(self) -> str:
        """For reports."""
        return "a function"

    def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
        """See `LatencySource`. One in eight candidates fails."""
        with self._log.open("ab", buffering=0) as log:
            log.write(candidate.network.fingerprint.encode() + b"\n")
        noise = int.from_bytes(hashlib.sha256(candidate.network.fingerprint.encode()).digest()[:4], "big") / 2**32
        future: Future[LatencyAnswer] = Future()
        if noise < 0.125:
            future.set_result(LatencyAnswer.measured(Measurement(Verdict.RUN_FAILED, "made up")))
        else:
            samples_ms = (analyze(candidate.network).macs / 1e5 + noise,)
            future.set_result(LatencyAnswer.measured(Measurement(Verdict.OK, samples_ms=samples_ms)))
        return future


def search(folder: Path, ready: int) -> None:
    """Does the search in a folder, or what is left of it; a byte into `ready` tells that the first step was made."""
    import tensorflow as tf

    from nas_edge.controllers.categorical import CategoricalController
    from nas_edge.search.loop import StepReport
    from nas_edge.search.one_shot import OneShotSettings
    from nas_edge.stages.policy_log import PolicyLog
    from nas_edge.stages.recorded import RecordedSearch
    from nas_edge.supernet.shared_weights import SharedWeights
    from nas_edge.supernet.supernet import Supernet
    from nas_edge.tasks.classification import Classification, ClassificationSettings
    from nas_edge.training.rmsprop import RMSProp
    from nas_edge.training.settings import OptimizationSettings

    with held_stderr():
        tf.config.experimental.enable_op_determinism()
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        task, weights = Classification(ClassificationSettings()), OptimizationSettings(weight_decay=1e-5)
        shared = SharedWeights(Supernet(tiny_space(), seed=1), RMSProp(0.01), task, weights)
    key = MeasuringKey("int8", "device", "runtime", "settings")
    with (
        locked_run(folder) as run,
        CachedSource(FunctionSource(folder / "asked.log"), run.path("measurements.sqlite"), key) as source,
        closing(run.open_journal(lambda _: None)) as journal,
        closing(run.open_journal(lambda _: None, "policy.jsonl")) as policy_journal,
    ):
        settings = run.config.search
        assert isinstance(settings, OneShotSettings)
        controller = CategoricalController(
            shared.supernet.space, settings.steps, base_learning_rate=0.02, delay_steps=settings.delay_steps
        )
        loop = one_shot_search(
            shared,
            controller,
            source,
            [Objective("latency_ms", 1.0)],
            SeededBatches(1),
            SeededBatches(2),
            np.random.default_rng(3),
            settings,
        )
        recorded = RecordedSearch(loop, journal, run.checkpoints, run.config.runs.checkpoint_steps, lambda _: None)
        policy = PolicyLog(policy_journal, loop.step, settings.steps)
        told = False

        def tell(report: StepReport) -> None:
            nonlocal told
            policy.write(report.step, loop.controller)
            if not told:
                told = True
                os.write(ready, b".")

        recorded.run(tell)
        run.write_json("result.json", {"architecture": str(loop.controller.most_likely())})


@contextmanager
def locked_run(folder: Path) -> Iterator[Run]:
    """The run in a folder, made if it is not there yet."""
    if not (folder / "config.json").exists():
        with Run.create(folder, config()) as run:
            yield run
        return
    run = Run.open(folder)
    with run.lock():
        yield run


def config() -> RunConfig:
    """A late reward, so that some are under way at every checkpoint."""
    settings = ("delay_fraction=0.1", "op_warmup_fraction=0.1", "filter_warmup_fraction=0.1", "reward_delay_steps=2")
    flags = {"search.steps": STEPS, "search.samples_per_step": 2, "runs.checkpoint_steps": 7}
    return load_config(flags=flags, settings=[f"search.{setting}" for setting in settings])


def attempt(folder: Path, kill_after_s: float | None, from_start: bool) -> bool:
    """Runs the search in a child, killed after so many seconds of starting or of steps; whether it was killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            search(folder, writer)
        except BaseException as error:
            print(f"a search failed: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    os.close(writer)
    if kill_after_s is not None:
        if not from_start:
            os.read(reader, 1)  # also returns when the child has ended
        # The pipe ends with the child, so one that is done is not waited for.
        deadline_s = time.monotonic() + kill_after_s
        while (left_s := deadline_s - time.monotonic()) > 0 and select.select([reader], [], [], left_s)[0]:
            if not os.read(reader, 1):
                break
        os.kill(child, signal.SIGKILL)  # not yet waited for, so the id is still its own
    _, status = os.waitpid(child, 0)
    os.close(reader)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status) != 0:
        raise SystemExit(f"a search ended with {os.WEXITSTATUS(status)}; its folder is {folder}")
    return False


def outcome(folder: Path) -> dict[str, Any]:
    """Everything two searches must agree in."""
    run = Run.open(folder)
    checkpoint = run.checkpoints.load(lambda text: sys.exit(text))
    assert checkpoint is not None
    with closing(sqlite3.connect(run.path("measurements.sqlite"))) as connection:
        rows = connection.execute("SELECT network, measurement FROM measurements ORDER BY network").fetchall()
    return {
        "journal": run.path("journal.jsonl").read_bytes(),
        "policy": run.path("policy.jsonl").read_bytes(),
        "rewards": [record["reward"] for record in run.journal()],
        "measurements": rows,
        "weights": {name: array.tobytes() for name, array in checkpoint.arrays.items()},
        "state": checkpoint.state,
        "architecture": run.read_json("result.json"),
    }


def append_ms(folder: Path, record: Mapping[str, Any]) -> float:
    """Median time of adding a record to a journal."""
    from nas_edge.runs.journal import Journal

    times_s = []
    with closing(Journal(folder / "appended.jsonl", lambda _: None)) as journal:
        for _ in range(APPENDS):
            start_s = time.perf_counter()
            journal.append(record)
            times_s.append(time.perf_counter() - start_s)
    return float(np.median(times_s)) * 1e3


def main() -> None:
    """Kills searches and compares what they come to."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_KILLS} kills instead of {KILLS}")
    kills = QUICK_KILLS if parser.parse_args().quick else KILLS
    with held_stderr():
        # Imported here, started in the children: TensorFlow's threads would not survive a fork.
        import tensorflow  # noqa: F401
    rng = np.random.default_rng()
    with tempfile.TemporaryDirectory(prefix="crash_resume.") as name:
        folder = Path(name)
        attempt(folder / "whole", None, from_start=True)
        expected = outcome(folder / "whole")
        killed, searches, differing, asked_again = 0, 0, Counter[str](), 0
        steps_at_kill: list[int] = []
        while killed < kills:
            killed_here = 0
            run = folder / "run"
            shutil.rmtree(run, ignore_errors=True)
            while True:
                from_start = bool(rng.random() < STARTING_SHARE)
                longest_s = LONGEST_START_S if from_start else LONGEST_S
                if not attempt(run, float(rng.uniform(0, longest_s)), from_start):
                    break
                killed_here += 1
                steps_at_kill.append(len((run / "journal.jsonl").read_bytes().splitlines()) if run.exists() else 0)
            killed += killed_here
            searches += 1
            found = outcome(run)
            differing.update(part for part in expected if found[part] != expected[part])
            # Killed between an answer and its storing, a network may be asked for once more; never otherwise.
            stored = {network for network, _ in found["measurements"]}
            asked = Counter((run / "asked.log").read_text().split())
            asked_again += max(0, sum(asked[network] - 1 for network in stored) - killed_here)
            print(f"search {searches}: killed {killed_here} times, {killed} of {kills}; differing: {dict(differing)}")
        figures = {
            "benchmark": "crash_resume",
            "kills": killed,
            "searches": searches,
            "trials_per_search": len(expected["rewards"]),
            "distinct_lengths_at_kill": len(set(steps_at_kill)),
            "differing": dict(differing),
            "measurements_asked_again": asked_again,
            "append_ms_median": append_ms(folder, {"samples_ms": [0.123456] * 200, "step": 1}),
            "targets": {"append_ms_median": TARGET_APPEND_MS},
        }
    figures["pass"] = not differing and not asked_again and figures["append_ms_median"] <= TARGET_APPEND_MS  # type: ignore[operator]
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

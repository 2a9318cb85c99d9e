"""Run folders to report on: made-up numbers, written by the code that writes real ones."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from device_agents.api import Measurement, Verdict
from nas_edge.controllers.base import Outcome, as_proposed
from nas_edge.controllers.categorical import CategoricalController
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.runs.example_scores import TEST_SCORES, ExampleScores, write_example_scores
from nas_edge.runs.result import ResultRow, RunResult, with_intervals
from nas_edge.runs.run import RANDOM, RANDOM_SCORES, SELECTION, Run
from nas_edge.search.trials import Trial
from nas_edge.spaces import find_space
from nas_edge.spaces.decisions import NetworkSpace
from nas_edge.stages.paired_tests import with_paired_tests
from nas_edge.stages.policy_log import PolicyLog
from nas_edge.tasks.classification import ACCURACY
from tests.support.synthetic_run import conditions, make_run

# What somebody who wants to do harm may write into a run folder.
HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>\x1b[31m =1+1"

# So many that accuracies in steps of half a percent are those of a whole number of images.
TEST_IMAGES = 200


def timed(median_ms: float, verdict: Verdict = Verdict.OK, detail: str = "") -> Measurement:
    """A measurement of the made-up device."""
    samples_ms = tuple(median_ms * (1 + 0.01 * (i % 5 - 2)) for i in range(50))
    return Measurement(verdict, detail, samples_ms=samples_ms, conditions=conditions())


def space_of(run: Run) -> NetworkSpace:
    part = run.config.space
    return find_space(part.name)(part.input_size, part.width_multiplier, 10, 1)


def finished_run(folder: Path, trials: int = 150, int8_factor: float = 0.6) -> Run:
    """A run that has been through all stages, with hostile texts wherever texts are free."""
    run = make_run(folder, trials, samples=20)
    space, config = space_of(run), run.config
    rng = np.random.default_rng(1)
    with closing(run.open_journal(pytest.fail)) as journal:
        lost = LatencyAnswer.measured(Measurement(Verdict.LOAD_FAILED, HOSTILE))
        architecture = space.canonical(space.sample(rng))
        journal.append(Trial(config.search.steps - 1, 0, architecture, 0.5, lost, None, None).to_json())
    scores = run.open_journal(pytest.fail, RANDOM_SCORES)
    worse = np.random.default_rng(2)
    for _ in range(20):  # than those that were timed
        architecture = space.canonical(space.sample(worse))
        scores.append(Trial(9, 9, architecture, 0.3, None, None, None).to_json())
    for stage, count, mean in ((SELECTION, 12, 0.8), (RANDOM, 60, 0.6)):
        with closing(run.open_journal(pytest.fail, stage)) as journal:
            for _ in range(count):
                quality, latency_ms = float(rng.normal(mean, 0.05)), float(rng.uniform(0.7, 1.2))
                architecture = space.canonical(space.sample(rng))
                answer = LatencyAnswer.measured(timed(latency_ms))
                trial = Trial(9, 9, architecture, quality, answer, {"latency_ms": latency_ms}, quality)
                journal.append(trial.to_json())
                if stage == RANDOM:
                    scores.append(replace(trial, latency=None, usage=None, reward=None).to_json())
    scores.close()
    write_policy(run)
    rows, scores = [], {}
    for name, ms, right in (("winner", 0.9, 0.91), ("best of random", 0.95, 0.9), ("proxylessnas-mobile", 1.2, 0.905)):
        latency = {"int8": timed(ms), "float32": timed(ms / int8_factor)}
        text = name if name.startswith("prox") else str(space.canonical(space.sample(rng)))
        quality = None if name.startswith("prox") else 0.85
        accuracy = {"int8": right, "float32": right + 0.01}
        rows.append(ResultRow(name, text, quality, accuracy, latency))
        for precision, share in accuracy.items():
            scores[name, precision] = rng.permutation(np.arange(TEST_IMAGES) < round(share * TEST_IMAGES))
    kept = ExampleScores("made up", scores)
    write_example_scores(run, kept)
    tested = with_paired_tests(rows, "int8", ACCURACY.paired_test, kept)
    result = RunResult(1.0, "int8", True, tested, HOSTILE, test_images=TEST_IMAGES)
    run.write_json("result.json", with_intervals(result, ACCURACY).to_json())
    return run


def forget_tests(run: Run) -> None:
    """Makes the run one of before intervals and tests of accuracies were kept."""
    run.path(TEST_SCORES).unlink()
    result = run.read_json("result.json")
    for row in result["rows"]:
        for later in ("accuracy_interval", "accuracy_vs_winner", "quantized_vs_float", "latency_differs"):
            del row[later]
    run.write_json("result.json", result)


def write_policy(run: Run, records: int = 40) -> None:
    """Lets a controller learn something, and notes how it settles."""
    space, rng = space_of(run), np.random.default_rng(2)
    controller = CategoricalController(space, records, base_learning_rate=0.2)
    with closing(run.open_journal(pytest.fail, "policy.jsonl")) as journal:
        log = PolicyLog(journal, 0, records)
        for step in range(records):
            outcomes = [Outcome(as_proposed(space, a), -float(sum(a.choices))) for a in controller.propose(4, rng)]
            controller.update(outcomes, step)
            log.write(step, controller)

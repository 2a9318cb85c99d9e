"""What TensorBoard's own reader finds in the files of a search."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from device_agents.api import Conditions, Measurement, Verdict
from nas_edge.controllers.categorical import CategoricalController
from nas_edge.controllers.random_search import RandomSearchController
from nas_edge.errors import RunError
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.search.loop import StepReport
from nas_edge.search.trials import Trial
from nas_edge.spaces.decisions import Architecture
from nas_edge.stages.policy_log import POLICY_RECORDS
from nas_edge.stages.tensorboard import TensorBoardLog
from nas_edge.testing.problems import nested_space
from tests.support.faults import Bench, FaultyFiles, Killed
from tests.support.sources import failed

SPACE = nested_space()
CONDITIONS = Conditions("device", "phone", "litert", "1", "cpu", 1, "2020-01-01T00:00:00", temperature_c_after=54.0)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by tag, as shown."""
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def timed(latency_ms: float, temperature_c: float | None = None) -> Measurement:
    conditions = None if temperature_c is None else CONDITIONS
    return Measurement(Verdict.OK, samples_ms=(latency_ms,), conditions=conditions)


def trial(measurement: Measurement | None, reward: float | None, quality: float = 0.5) -> Trial:
    answer = None if measurement is None else LatencyAnswer.measured(measurement)
    return Trial(3, 3, Architecture((0, 0)), quality, answer, None, reward)


def written(folder: Path, *reports: StepReport, steps: int = 10, **more: Any) -> dict[str, list[tuple[int, float]]]:
    log = TensorBoardLog(folder, 0, steps, target_ms=4.0)
    for report in reports:
        log.write(
            report,
            more.get("controller") or CategoricalController(SPACE, steps, base_learning_rate=0.125, delay_steps=2),
        )
    log.close()
    log.close()
    return scalars(folder)


def test_scalars_are_means_over_what_is_known(tmp_path: Path) -> None:
    trials = (trial(timed(1.0, 54.0), 0.25), trial(timed(2.0), 0.75, quality=1.0), trial(failed(Verdict.TIMEOUT), None))
    found = written(tmp_path, StepReport(0, 2.5, (), 3.0), StepReport(7, 1.5, trials, 2.0))
    assert found["search/loss"] == [(0, 2.5), (7, 1.5)]
    assert found["search/reward"] == [(7, 0.5)]
    assert found["search/quality"] == [(7, pytest.approx(2 / 3))]
    assert found["search/latency_ms"] == [(7, 1.5)]
    assert found["search/latency_of_target"] == [(7, 0.375)]
    assert found["controller/entropy"] == [(0, 3.0), (7, 2.0)]
    assert found["controller/learning_rate"][0] == (0, 0.0)
    assert found["device/temperature_c"] == [(7, 54.0)]


def test_the_policy_is_written_by_decision_and_choice(tmp_path: Path) -> None:
    controller = CategoricalController(SPACE, 10)
    found = written(tmp_path, StepReport(0, 1.0, (), 1.0), controller=controller)
    expected = {
        f"policy {decision.path}/{i}: {choice}": pytest.approx(1 / len(decision.choices))
        for decision in SPACE.decisions
        for i, choice in enumerate(decision.choices)
        if len(decision.choices) > 1
    }
    assert expected
    assert {tag: values[0][1] for tag, values in found.items() if tag.startswith("policy")} == expected


def test_a_long_search_has_its_policy_written_now_and_then_and_at_the_end(tmp_path: Path) -> None:
    steps = 5 * POLICY_RECORDS + 3
    reports = [StepReport(step, 1.0, (), 1.0) for step in (0, 1, 4, 5, 6, steps - 1)]
    found = written(tmp_path, *reports, steps=steps)
    (tag, *_) = [tag for tag in found if tag.startswith("policy")]
    assert [step for step, _ in found[tag]] == [0, 5, steps - 1]
    assert len(found["search/loss"]) == 6


def test_a_controller_without_a_rate_has_none(tmp_path: Path) -> None:
    found = written(tmp_path, StepReport(0, 1.0, (), 1.0), controller=RandomSearchController(SPACE))
    assert "controller/learning_rate" not in found
    assert "search/loss" in found


def test_a_controller_without_a_policy_has_no_entropy(tmp_path: Path) -> None:
    class NoPolicy(RandomSearchController):
        def probabilities(self) -> None:  # type: ignore[override]
            return None

    found = written(tmp_path, StepReport(0, 1.0, (), None), controller=NoPolicy(SPACE))
    assert set(found) == {"search/loss"}


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path, 0, 10, 4.0)
    log._file = tf.io.TFRecordWriter("/dev/full")
    with pytest.raises(RunError, match=r"cannot write .*tfevents.*No space left on device.*--resume"):
        log.write(StepReport(0, 1.0, (), 1.0), CategoricalController(SPACE, 10))


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        TensorBoardLog(tmp_path / "file" / "tensorboard", 0, 10, 4.0)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def search(bench: Bench, folder: Path, files: FaultyFiles | None = None) -> None:
    """Runs or continues the search in the folder, logging."""
    more = {} if files is None else {"files": files}
    recorded = bench.recorded(folder, bench.loop(), **more)
    log = TensorBoardLog(folder / "tensorboard", recorded.loop.step, recorded.loop.steps, 1.0)
    try:
        recorded.run(lambda report: log.write(report, recorded.loop.controller))
    finally:
        log.close()


def test_a_search_that_was_killed_again_and_again_shows_every_step_once(bench: Bench, tmp_path: Path) -> None:
    search(bench, tmp_path / "whole")
    whole = scalars(tmp_path / "whole" / "tensorboard")
    assert [step for step, _ in whole["search/loss"]] == list(range(9))
    rng = np.random.default_rng(1)
    folder = tmp_path / "run"
    for _ in range(8):
        try:
            search(bench, folder, FaultyFiles(int(rng.integers(4, 16)), Killed))
        except Killed:
            newest = max((folder / "tensorboard").iterdir())
            half_a_record = newest.read_bytes()[: int(rng.integers(30))]  # as if it had died while writing
            with newest.open("ab") as file:
                file.write(half_a_record)
    search(bench, folder)
    assert len(list((folder / "tensorboard").iterdir())) > 3
    assert scalars(folder / "tensorboard") == whole


def test_foreign_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    written(tmp_path, StepReport(0, 1.0, (), 1.0))
    written(tmp_path, StepReport(0, 1.0, (), 1.0))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "events.out.tfevents.000001.nas_edge",
        "events.out.tfevents.000002.nas_edge",
        "notes.txt",
    ]

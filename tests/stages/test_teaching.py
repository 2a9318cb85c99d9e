"""The network that teaches: trained once per search, kept, and not asked for where no method wants it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from nas_edge.config import load_config
from nas_edge.errors import ConfigError, TrainingError
from nas_edge.runs.run import Run
from nas_edge.runs.stopped_early import EarlyStop, note_early_stop, read_early_stops
from nas_edge.runs.teacher import read_teacher
from nas_edge.spaces.decisions import Architecture
from nas_edge.stages.contender import Contender
from nas_edge.stages.context import RunContext, open_task
from nas_edge.stages.final_training import train_once
from nas_edge.stages.teaching import teacher_of
from nas_edge.tasks.base import NetworkTask
from nas_edge.testing.trainings import bright_or_dark
from tests.support.reporters import Terminating
from tests.support.spaces import tiny_space

SPACE = tiny_space(8, 1, 2)
STUDENT = Contender("winner", "0:1", None, SPACE.decode(Architecture((0, 1))))


def context(folder: Path, *settings: str) -> RunContext:
    task, data = bright_or_dark()
    chosen = ("training.method=distillation", "training.epochs=1", "training.batch_size=16", *settings)
    config, nothing = load_config("smoke", settings=chosen), cast(Any, None)
    reporter = Terminating("nothing", 0)
    return RunContext(Run(folder), config, task, data, SPACE, nothing, reporter, nothing, "again")


def stages(context: RunContext) -> list[str]:
    return cast(Terminating, context.reporter).stages


def test_the_largest_network_teaches_and_is_trained_once(tmp_path: Path) -> None:
    run = context(tmp_path / "run")
    weights = train_once(run, STUDENT)
    assert stages(run) == ["training teacher", "training winner"]
    (kept,) = run.run.path("teacher").iterdir()
    facts = read_teacher(run.run)
    assert facts is not None
    assert (facts.architecture, facts.quality is not None) == ("1:15", True)

    # Killed after that, another network learns from the same; so does one that is delivered later.
    resumed = context(tmp_path / "run")
    train_once(resumed, replace(STUDENT, name="best of random"))
    later = replace(context(tmp_path / "run/delivered/x"), searched=run.run)
    again = train_once(later, STUDENT)
    assert stages(resumed) == ["training best of random"]
    assert stages(later) == ["training winner"]
    assert read_teacher(later.run) == facts
    assert list(run.run.path("teacher").iterdir()) == [kept]
    for name, arrays in weights.items():
        for one, other in zip(arrays, again[name], strict=True):
            np.testing.assert_array_equal(one, other)

    # Students may differ in how they learn, but a teacher that is trained otherwise is another.
    other = context(tmp_path / "run", "training.teacher_weight=0.9")
    assert teacher_of(other) is not None
    assert stages(other) == []
    assert read_teacher(other.run) == facts
    with pytest.raises(TrainingError, match=r"^the teacher: .* for example: again --set training\.learning_rate="):
        teacher_of(context(tmp_path / "run", "training.learning_rate=1e30"))
    assert list(run.run.path("teacher").iterdir()) == [kept]


def test_a_method_without_a_teacher_trains_none(tmp_path: Path) -> None:
    run = context(tmp_path, "training.method=standard")
    assert teacher_of(run) is None
    assert not list(tmp_path.iterdir())


def test_a_task_that_does_not_say_what_is_learned_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("smoke", settings=["training.method=distillation"])
    assert open_task(config).delivers
    monkeypatch.setattr(NetworkTask, "distills", False)
    with pytest.raises(ConfigError, match="classification does not say what is learned from another network"):
        open_task(config)


def test_how_a_training_stopped_early_is_kept(tmp_path: Path) -> None:
    settings = ("training.method=standard", "training.images=train", "training.early_stopping=1", "training.epochs=9")
    run = context(tmp_path, *settings, "training.learning_rate=0.01")
    train_once(run, STUDENT)
    stop = read_early_stops(run.run)["winner"]
    assert stop.best_step < stop.steps < stop.planned == 36, "a rate as low as this teaches nothing from epoch to epoch"
    assert f"training winner ended after {stop.steps} of 36 steps" in cast(Terminating, run.reporter).said[-1]
    note_early_stop(run.run, "other", EarlyStop(1, 2, 1, 0.5))
    assert set(read_early_stops(run.run)) == {"winner", "other"}

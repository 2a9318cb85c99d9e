"""A task without classes goes the same way as classification: shared weights, training, files, bundle."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas_edge.config import RunConfig, load_config
from nas_edge.export.bundle import DeliveredModel, replay_golden, verify_bundle, write_bundle
from nas_edge.export.on_device import check_on_device
from nas_edge.export.verify import run_tflite
from nas_edge.latency.source import Candidate
from nas_edge.networks.graph import Weights
from nas_edge.quality import QUALITY_SOURCES
from nas_edge.quality.source import QualityContext
from nas_edge.rewards import Objective
from nas_edge.search.methods import SearchContext, make_search
from nas_edge.spaces.decisions import Architecture, NetworkSpace
from nas_edge.stages.contender import Contender
from nas_edge.stages.delivering import TrainedModel, convert
from nas_edge.tasks.base import TaskData
from nas_edge.training.methods import TrainingContext, TrainingStep, train_network
from tests.support.brightness import Brightness, BrightnessSettings
from tests.support.sources import FunctionSource, timed
from tests.support.spaces import tiny_space

SETTINGS = (
    "search.steps=8",
    "search.samples_per_step=1",
    "search.delay_fraction=0.5",
    "search.op_warmup_fraction=0.25",
    "training.optimizer=adam",
    "training.learning_rate=0.2",
    "training.epochs=4",
    "target.latency_ms=1",
)
ARCHITECTURE = Architecture((0, 7))


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return load_config("smoke", settings=SETTINGS)


@pytest.fixture(scope="module")
def task() -> Brightness:
    return Brightness(BrightnessSettings())


@pytest.fixture(scope="module")
def data(task: Brightness, config: RunConfig) -> TaskData:
    return task.load(config.data, 8, 0)


@pytest.fixture(scope="module")
def space(task: Brightness, data: TaskData) -> NetworkSpace:
    return tiny_space(classes=task.outputs(data))


@pytest.fixture(scope="module")
def trained(task: Brightness, data: TaskData, space: NetworkSpace, config: RunConfig) -> tuple[Weights, list[Any]]:
    reports: list[TrainingStep] = []
    context = TrainingContext(space.decode(ARCHITECTURE), None, task, data, seed=0)
    return train_network(config.training, context, reports.append), reports


@pytest.fixture(scope="module")
def model(
    task: Brightness, data: TaskData, space: NetworkSpace, config: RunConfig, trained: tuple[Weights, list[Any]]
) -> TrainedModel:
    contender = Contender("winner", str(ARCHITECTURE), None, space.decode(ARCHITECTURE))
    return convert(config, task, data, contender, trained[0])


def test_a_one_shot_search_scores_with_its_metric(
    task: Brightness, data: TaskData, space: NetworkSpace, config: RunConfig
) -> None:
    latency = FunctionSource(lambda _: timed(1.0))
    loop = make_search(config.search, SearchContext(space, task, data, latency, [Objective("latency_ms", 1.0)], 0))
    trials = [trial for _ in range(loop.steps) for trial in loop.take_step().trials]
    assert len(trials) == 4
    for trial in trials:
        assert trial.quality is not None
        assert trial.quality <= 1
        assert trial.reward == trial.quality
    assert loop.evaluate(ARCHITECTURE).quality == pytest.approx(trials[-1].quality, abs=5)


def test_a_short_training_scores_with_its_metric(task: Brightness, data: TaskData, space: NetworkSpace) -> None:
    settings = QUALITY_SOURCES.settings(
        {
            "source": "short-training",
            "weights": {"epochs": 4, "batch_size": 64, "optimizer": "adam", "learning_rate": 0.2},
        }
    )
    source = QUALITY_SOURCES.make(settings, QualityContext(space, task, data, 0))
    quality = source.evaluate(Candidate(space.build(ARCHITECTURE), ARCHITECTURE)).value
    assert quality is not None
    assert 0.3 < quality <= 1


def test_training_reports_its_metric(trained: tuple[Weights, list[TrainingStep]]) -> None:
    _, reports = trained
    assert reports[-1].loss < 0.5 * reports[0].loss
    assert reports[-1].quality > max(0.3, reports[0].quality)


def test_files_are_tested_with_its_metric(model: TrainedModel, task: Brightness, data: TaskData) -> None:
    assert set(model.quality) == {"float32", "int8"}
    images, targets = data.arrays(data.split.test)
    outputs = run_tflite(model.files["float32"], images)
    assert outputs.shape == targets.shape == (len(images), 1)
    residual = np.square(outputs - targets).sum() / np.square(targets - targets.mean()).sum()
    assert model.quality["float32"] == pytest.approx(1 - residual, rel=1e-4)
    assert model.quality["float32"] > 0.3
    assert model.quality["int8"] == pytest.approx(model.quality["float32"], abs=0.1)


def test_a_device_is_held_against_its_answers(model: TrainedModel, task: Brightness, data: TaskData) -> None:
    images, _ = data.arrays(data.split.test[:4])
    file = model.files["float32"]
    right = check_on_device(file, images, lambda f, inputs: [run_tflite(f, inputs[0])], task.same_answer)
    assert (right.agrees, right.same_answer) == (True, 1.0)
    wrong = check_on_device(file, images, lambda f, inputs: [run_tflite(f, inputs[0]) + 9], task.same_answer)
    assert (wrong.agrees, wrong.same_answer) == (False, 0.0)


def test_its_bundle_has_no_labels(model: TrainedModel, task: Brightness, data: TaskData, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    models = {name: DeliveredModel(file, model.quality[name]) for name, file in model.files.items()}
    write_bundle(
        folder,
        models=models,
        precision="int8",
        section=task.bundle_section(data),
        metric=task.metric,
        preprocessing=data.preprocessing,
        golden_examples=data.dataset.stored(data.split.test[:1]),
        space="tiny",
        architecture=str(ARCHITECTURE),
        decisions={},
    )
    bundle = verify_bundle(folder)
    assert "labels.txt" not in bundle.files
    assert max(replay_golden(bundle).values()) < 1
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["brightness_scale"] == 0.1
    assert "classes" not in manifest
    assert manifest["models"]["int8"]["R2"] == model.quality["int8"]
    readme = bundle.files["README.md"].decode()
    assert not re.search(r"label|class|logit|accuracy", readme)
    assert "tells how bright an image is" in readme
    assert f"| {model.quality['int8']:.3f} |" in readme
    command = [sys.executable, "example_python.py", "golden/0.png"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    answer = re.fullmatch(r"brightness: (\S+)\n", run.stdout)
    assert answer
    expected = run_tflite(model.files["int8"], data.arrays(data.split.test[:1])[0])[0, 0]
    assert math.isclose(float(answer[1]), expected, abs_tol=0.1)

"""What the tasks other than classification compute, and that a bundle of each says it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas_edge.config import RunConfig, load_config
from nas_edge.data.settings import DataSettings
from nas_edge.data.sources import load
from nas_edge.data.targets import CLASSES, KINDS, LABELS, VALUES
from nas_edge.errors import DataError
from nas_edge.export.bundle import DeliveredModel, replay_golden, verify_bundle, write_bundle
from nas_edge.export.verify import file_quality
from nas_edge.networks.keras_model import get_weights, keras_model
from nas_edge.spaces.decisions import Architecture
from nas_edge.stages.contender import Contender
from nas_edge.stages.context import open_task
from nas_edge.stages.delivering import TrainedModel, convert
from nas_edge.tasks import TASKS
from nas_edge.tasks.base import NetworkTask, TaskData
from nas_edge.tasks.comparing import bootstrap_interval, wilcoxon_p_value
from tests.support.spaces import tiny_space

SOURCE = "procedural:size=16,classes=4,difficulty=0.1,train=80,test=40"
ARCHITECTURE = Architecture((0, 7))


def task_of(name: str) -> Any:
    return TASKS.make(TASKS.settings(name))


# ---------------------------------------------------------------- targets


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_images_drawn_by_rule_are_the_same_with_any_targets(kind: Any) -> None:
    classes, other = load(SOURCE), load(SOURCE, kind=kind)
    for index in (0, 119):
        np.testing.assert_array_equal(classes.images[index], other.images[index])
    assert len(other) == 120
    assert kind.count(np.asarray(other.labels)) <= len(other.class_names)


def test_a_figure_has_the_labels_that_its_class_is_named_after() -> None:
    classes, labels = load(SOURCE), load(SOURCE, kind=LABELS)
    for number, row in zip(classes.labels, labels.labels, strict=True):
        named = [name for name, has in zip(labels.class_names, row, strict=True) if has]
        assert "{} of {} with {}".format(*named) == classes.class_names[number]


@pytest.mark.parametrize(
    ("kind", "y", "says"),
    [
        ("labels", [[0, 1], [1, 2]], "0 or 1 for each label"),
        ("labels", [[0, 1], [0, 1]], "no image has the label 0"),
        ("values", [1.0, float("nan")], "not finite"),
        ("values", [[1.0, 2.0], [1.0, 3.0]], "column 0 is the same"),
        ("masks", [0, 1], r"must be \[n, height, width\]"),
        ("masks", np.zeros((2, 4, 4), int), "only one class"),
    ],
)
def test_targets_that_cannot_be_used_are_refused(tmp_path: Path, kind: str, y: Any, says: str) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros((2, 4, 4, 3), np.uint8), y=np.array(y))
    with pytest.raises(DataError, match=says):
        load(str(tmp_path / "data.npz"), kind=KINDS[kind])


def test_data_with_classes_only_are_refused_by_a_task_with_other_targets() -> None:
    with pytest.raises(DataError, match=r"digits has classes only; expected values: .* an .npz file"):
        load("digits", kind=VALUES)
    assert load("digits", kind=CLASSES).class_names == tuple("0123456789")


# ---------------------------------------------------------------- metrics


def test_f1_counts_labels_of_all_images() -> None:
    task = task_of("multi-label")
    outputs, targets = np.array([[2.0, -1.0], [1.0, 3.0]]), np.array([[1, 1], [0, 1]])
    assert task.statistics(outputs, targets).tolist() == [2, 1, 1]
    assert task.score(outputs, targets) == 2 * 2 / (2 * 2 + 1 + 1)
    assert task.example_scores(outputs, targets).tolist() == [2 / 3, 2 / 3]


def test_r2_is_the_mean_over_values() -> None:
    task = task_of("regression")
    targets = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 8.0]])
    outputs = np.array([[0.0, 4.0], [2.0, 4.0], [4.0, 4.0]])
    assert task.score(outputs, targets) == pytest.approx((1 + 0) / 2)


def test_an_interval_is_found_by_drawing_examples_again() -> None:
    correct = np.repeat([1.0, 0.0], [80, 20])
    statistics = np.stack([correct, np.ones(100)], axis=1)
    low, high = bootstrap_interval(statistics, lambda total: float(total[0] / total[1])) or (None, None)
    assert (low, high) == (pytest.approx(0.72, abs=0.02), pytest.approx(0.87, abs=0.02))  # 0.8 -+ 1.96 * 0.04
    assert bootstrap_interval(statistics[:1], lambda total: 1.0) is None


def test_networks_with_the_same_scores_do_not_differ() -> None:
    scores = np.random.default_rng(0).random(40)
    assert wilcoxon_p_value(scores, scores) == 1
    assert wilcoxon_p_value(scores, scores + 0.1) < 1e-6
    # By hand: of the 2^8 ways to give the ranks a sign, 5 have 3 or less on one side: none, 1, 2, 3, 1 + 2.
    assert wilcoxon_p_value(np.array([1.0, 2, -3, 4, 5, 6, 7, 8]), np.zeros(8)) == pytest.approx(10 / 256)


# ---------------------------------------------------------------- settings


def test_a_task_brings_defaults_and_data_to_see_it_work_with() -> None:
    config = load_config("smoke", flags={"task.name": "regression"})
    assert config.data.source.startswith("procedural:")
    assert config.data.augmentation.shift == 0
    own = load_config("smoke", flags={"task.name": "regression"}, settings=["data.source=a.npz"])
    assert (own.data.source, own.data.augmentation.zoom) == ("a.npz", 0)
    assert load_config("smoke").data.augmentation.shift > 0
    continued = load_config(settings=["search.steps=5"], base=own)
    assert continued.data == own.data


# ---------------------------------------------------------------- bundles


@pytest.fixture(scope="module", params=["multi-label", "regression"])
def delivered(request: pytest.FixtureRequest) -> tuple[RunConfig, NetworkTask, TaskData, TrainedModel]:
    """A network of each task as it is delivered, untrained."""
    config = load_config("smoke", flags={"task.name": request.param}, settings=["target.latency_ms=1"])
    task: Any = open_task(config)
    data = task.load(DataSettings(source=SOURCE), 16, 0)
    network = tiny_space(classes=task.outputs(data), input_size=16, channels=3).decode(ARCHITECTURE)
    weights = get_weights(keras_model(network), network)
    return config, task, data, convert(config, task, data, Contender("winner", "0:7", None, network), weights)


def test_a_bundle_says_what_its_task_says(delivered: Any, tmp_path: Path) -> None:
    _, task, data, model = delivered
    tested = file_quality(model.files["int8"], data.in_order(data.split.test, 7), task)
    assert model.quality["int8"] == pytest.approx(tested.value)
    assert model.interval["int8"] == pytest.approx(tested.interval)
    assert tested.interval is not None
    models = {
        name: DeliveredModel(file, model.quality[name], breakdown=model.breakdown[name])
        for name, file in model.files.items()
    }
    folder = tmp_path / "bundle"
    write_bundle(
        folder,
        models=models,  # type: ignore[arg-type]
        precision="int8",
        section=task.bundle_section(data),
        metric=task.metric,
        preprocessing=data.preprocessing,
        golden_images=data.dataset.stored(data.split.test[:1]),
        space="tiny",
        architecture=str(ARCHITECTURE),
        decisions={},
    )
    bundle = verify_bundle(folder)
    assert max(replay_golden(bundle).values()) < 1
    facts = json.loads((folder / "manifest.json").read_text())["models"]["int8"]
    assert facts[task.metric.name] == pytest.approx(tested.value)
    (table,) = facts["breakdown"].values()
    assert set(table) == set(data.dataset.class_names)
    for name in ("README.md", "MODEL_CARD.md"):
        text = bundle.files[name].decode()
        assert task.metric.name in text
        assert "accuracy" not in text
    command = [sys.executable, "example_python.py", "golden/0.png"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert run.stdout.startswith("labels:" if task.metric.name == "F1" else "right: ")

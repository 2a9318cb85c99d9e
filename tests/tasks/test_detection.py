"""Detection: what outputs mean, what places learn, and the networks that make them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nas_edge.networks import layers as L
from nas_edge.spaces import blocks
from nas_edge.spaces.decisions import Architecture
from nas_edge.tasks import TASKS
from nas_edge.tasks.base import with_head
from nas_edge.tasks.detection_kotlin import kotlin_sources
from nas_edge.tasks.detections import centres, detect, overlaps, suppress
from nas_edge.testing import check_supernet
from nas_edge.training.settings import OptimizationSettings
from tests.support.spaces import tiny_space

RULES = {"sides": [2, 1], "distance_scale": 4.0, "score_shift": 4.6, "least_score": 0.05, "overlap": 0.6, "most": 100}


def task_of(**settings: Any) -> Any:
    return TASKS.make(TASKS.settings({"name": "detection", **settings}))


# ---------------------------------------------------------------- from outputs to boxes


def test_places_cover_the_square_map_by_map() -> None:
    points, lengths = centres([2, 1])
    assert points.tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75], [0.5, 0.5]]
    assert lengths.tolist() == [0.5, 0.5, 0.5, 0.5, 1]


def test_outputs_become_boxes_by_hand() -> None:
    outputs = np.full((5, 1, 6), -9.0, np.float32)
    half = 4 * np.log(0.5)
    outputs[2, 0] = [half, half, 0, half, 4.6, -9]  # at 0.25, 0.75: 0.25 to the left, top and bottom, 0.5 to the right
    outputs[4, 0] = [half, half, 8, 8, -9, 4.6 + np.log(3)]  # at the middle, beyond the edge
    boxes, labels, scores = detect(outputs, RULES)
    np.testing.assert_allclose(boxes, [[0, 0, 1, 1], [0, 0.5, 0.75, 1]], atol=1e-6)
    assert labels.tolist() == [1, 0]
    np.testing.assert_allclose(scores, [0.75, 0.5], rtol=1e-5)
    assert len(detect(outputs, {**RULES, "least_score": 0.6})[0]) == 1
    assert len(detect(outputs, {**RULES, "most": 1})[0]) == 1
    assert [len(part) for part in detect(outputs - 20, RULES)] == [0, 0, 0]


def test_a_less_sure_box_of_the_same_class_is_left_out() -> None:
    boxes = np.array([[0, 0, 4, 4], [0, 0, 4, 3], [0, 0, 4, 3], [0, 0, 4, 2], [0, 0, 2, 4]], np.float32) / 4
    np.testing.assert_allclose(overlaps(boxes[:1], boxes)[0], [1, 0.75, 0.75, 0.5, 0.5])
    labels = np.array([0, 0, 1, 0, 0])
    assert suppress(boxes, labels, 0.6, 100).tolist() == [0, 2, 3, 4]
    assert suppress(boxes, labels, 0.75, 100).tolist() == [0, 1, 2, 3, 4]
    assert suppress(boxes[1:], labels[1:], 0.6, 100).tolist() == [
        0,
        1,
        3,
    ]  # of the fourth, two thirds are in the second
    assert suppress(boxes, labels, 0.6, 2).tolist() == [0, 2]


def test_the_kotlin_test_has_boxes_that_are_left_out() -> None:
    sources = {name: content.decode() for name, content in kotlin_sources(RULES | {"sides": [4, 2]}).items()}
    assert "Detections(intArrayOf(4, 2), 4.0f, 4.6f, 0.05f, 0.6f, 100)" in sources["main/ModelDetections.kt"]
    case = sources["test/DetectionsCase.kt"]
    outputs, expected = (
        np.array([float(value) for value in part.split(")")[0].replace("f", "").split(",")]).reshape(-1, 6)
        for part in case.split("floatArrayOf(")[1:]
    )
    boxes, labels, scores = detect(outputs, RULES)
    np.testing.assert_allclose(expected, np.column_stack([boxes, labels, scores]), atol=1e-5)
    assert 1 < len(expected) < len(detect(outputs, {**RULES, "overlap": 1.0})[0])
    for text in sources.values():
        assert text.startswith("package ai.nasedge.example\n")
        assert text.count("{") == text.count("}")


# ---------------------------------------------------------------- what places learn

TARGETS = np.array(
    [
        # Small, large, and small inside of the large one.
        [[0, 0.05, 0.1, 0.3, 0.3, 0], [1, 0.2, 0.2, 0.95, 0.9, 0], [1, 0.5, 0.5, 0.7, 0.75, 0], [-1, 0, 0, 0, 0, 0]],
        [[1, 0.4, 0.0, 1.0, 0.6, 1], [0, 0.1, 0.6, 0.3, 0.9, 0], [-1, 0, 0, 0, 0, 0], [-1, 0, 0, 0, 0, 0]],
    ],
    np.float32,
)
SIDES = [8, 4, 2]


def taught(task: Any) -> Any:
    """Outputs that answer what each place is to learn."""
    wanted, label, learns, _ = (np.asarray(part) for part in task._assigned(84, TARGETS))
    outputs = np.full((2, 84, 1, 6), -6.0, np.float32)
    outputs[..., 0, :4] = 4 * np.log(wanted)
    for row, place in np.argwhere(learns):
        outputs[row, place, 0, 4 + label[row, place]] = 12
    return outputs, learns


def test_each_object_is_learned_at_places_near_its_centre_on_a_map_of_its_size() -> None:
    task = task_of(stride=4)
    assert task._sides_of(84) == SIDES
    outputs, learns = taught(task)
    assert task.score(outputs, TARGETS) == 1
    # By hand: the first object's own places, and how many of all three objects there are on each map. The large one
    # has two places of the first map that are not the small one's inside of it, and those of the second map that reach
    # farther than four places of the first.
    where = centres(SIDES)[0][learns[0]].tolist()
    assert where[:2] == [[0.0625, 0.1875], [0.1875, 0.1875]]
    assert [int(part.sum()) for part in np.split(learns[0], [64, 80])] == [2 + 2 + 4, 8, 0]
    assert learns[1].any()


def test_the_loss_is_least_where_the_answers_are_right() -> None:
    import tensorflow as tf

    task, settings = task_of(stride=4), OptimizationSettings()
    outputs, _ = taught(task)

    def loss(values: Any) -> float:
        return float(task.loss(tf.constant(values), tf.constant(TARGETS), settings))

    right = loss(outputs)
    assert right < 1e-3
    moved, unsure, wrong = outputs.copy(), outputs.copy(), outputs.copy()
    moved[..., 0] += 1
    unsure[..., 4:] = np.where(unsure[..., 4:] > 0, 4.6, unsure[..., 4:])
    # At one place inside of the ignored box, and at another outside of all.
    place = int(np.abs(centres(SIDES)[0][:64] - [0.8125, 0.3125]).sum(axis=1).argmin())
    ignored = outputs.copy()
    ignored[1, place, 0, 5] = 12
    wrong[1, int(np.abs(centres(SIDES)[0][:64] - [0.8125, 0.9375]).sum(axis=1).argmin()), 0, 5] = 12
    assert loss(ignored) == pytest.approx(right)
    for worse in (moved, unsure, wrong):
        assert loss(worse) > right + 0.01
    empty = TARGETS.copy()
    empty[..., 0] = -1
    assert np.isfinite(float(task.loss(tf.constant(outputs), tf.constant(empty), settings)))


def test_an_image_without_objects_scores_by_what_is_found_in_it() -> None:
    task = task_of(stride=4)
    outputs, _ = taught(task)
    none = np.full_like(TARGETS, 0)
    none[..., 0] = -1
    assert task.example_scores(outputs, none).tolist() == [0, 0]
    assert task.example_scores(np.full_like(outputs, -6), none).tolist() == [1, 1]
    assert task.example_scores(outputs, TARGETS).tolist() == [1, 1]
    assert task.same_answer(outputs, outputs + 0.1) == 1
    assert task.same_answer(outputs, np.concatenate([outputs[:1], outputs[1:] - 20])) == 0.5
    told = task.describe_breakdown(task.breakdown(outputs, TARGETS), _named("a", "b", "c"))
    assert told["AP50"] == 1
    assert told["classes"] == {
        "a": {"AP": 1.0, "AP50": 1.0, "boxes": 2},
        "b": {"AP": 1.0, "AP50": 1.0, "boxes": 2},
        "c": {"AP": None, "AP50": None, "boxes": 0},
    }


def _named(*names: str) -> Any:
    """Data of which only the classes are asked for."""
    return SimpleNamespace(dataset=SimpleNamespace(class_names=names))


# ---------------------------------------------------------------- networks


def test_a_head_looks_at_maps_of_several_strides_alike_in_space_and_supernet() -> None:
    space = tiny_space(classes=6, input_size=16, channels=3)
    stem, *rest = space.template.parts
    deeper = space.with_template(L.Sequential((stem, ("block", blocks.conv_norm(6, "relu", 3, 2)), *rest)))
    found = with_head(deeper, task_of(stride=2, width=8))
    network = found.decode(Architecture((0, 7)))
    assert network.output_shape == (64 + 16 + 4, 1, 6)
    maps = [node.shape for node in network.nodes if node.name.endswith("outputs")]
    assert maps == [(8, 8, 6), (4, 4, 6), (2, 2, 6)]
    # Fewer maps where there is nothing left to make smaller.
    assert with_head(deeper, task_of(stride=4, width=8, levels=5)).output_shape == (16 + 4 + 1, 1, 6)
    check_supernet(lambda *_: found)

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
from nas_edge.data.augmentation import Augmentation
from nas_edge.data.masks import MaskView
from nas_edge.data.preprocessing import to_unit_range
from nas_edge.data.settings import DataSettings
from nas_edge.data.sources import load
from nas_edge.data.targets import CLASSES, KINDS, VALUES, VOID
from nas_edge.errors import DataError, SpaceError
from nas_edge.export.bundle import DeliveredModel, replay_golden, verify_bundle, write_bundle
from nas_edge.export.verify import file_quality
from nas_edge.networks import layers as L
from nas_edge.networks.donor import Donor
from nas_edge.networks.keras_model import get_weights, keras_model
from nas_edge.spaces import blocks
from nas_edge.spaces.decisions import Architecture, NetworkSpace
from nas_edge.stages.contender import Contender
from nas_edge.stages.context import open_task
from nas_edge.stages.delivering import TrainedModel, convert
from nas_edge.tasks import TASKS
from nas_edge.tasks.base import NetworkTask, TaskData, with_head
from nas_edge.tasks.comparing import bootstrap_interval, wilcoxon_p_value
from nas_edge.testing import check_supernet
from tests.support.spaces import tiny_space

SOURCE = "procedural:size=16,classes=4,difficulty=0.1,train=80,test=40"
ARCHITECTURE = Architecture((0, 7))


def task_of(name: str) -> Any:
    return TASKS.make(TASKS.settings(name))


# ---------------------------------------------------------------- targets


def test_images_drawn_by_rule_are_the_same_with_any_targets() -> None:
    drawn = {name: load(SOURCE, kind=kind) for name, kind in KINDS.items()}
    classes, labels = drawn["classes"], drawn["labels"]
    for name, other in drawn.items():
        for index in (0, 119):
            np.testing.assert_array_equal(classes.images[index], other.images[index])
        assert len(other) == 120
        assert KINDS[name].count(np.asarray(other.labels)) <= len(other.class_names)
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
        ("masks", np.zeros((2, 4, 6), int), "only one class"),
        ("masks", np.full((2, 4, 6), [0, 0, 0, 255, 255, 255]), "255 means that the class is unknown; .* save it as 1"),
        ("masks", np.full((2, 4, 6), 300), r"from 0 to 254, or 255 .* received 300\.\.300"),
        ("masks", np.zeros((2, 6, 4), int), r"y are 6 x 4 \(height x width\) but images of x 4 x 6; save"),
    ],
)
def test_targets_that_cannot_be_used_are_refused(tmp_path: Path, kind: str, y: Any, says: str) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros((2, 4, 6, 3), np.uint8), y=np.array(y))
    with pytest.raises(DataError, match=says):
        load(str(tmp_path / "data.npz"), kind=KINDS[kind])


@pytest.mark.parametrize(
    ("kind", "train", "test", "says"),
    [
        ("masks", np.eye(4, dtype=int)[None], np.eye(5, dtype=int)[None], "y_test are 5 x 5 .* images of x_test 4 x 4"),
        ("labels", [[0, 1], [1, 0]], [[0, 1, 1]], "y_test of .* has 3 columns, and y_train 2"),
        ("values", [[0, 1], [1, 0]], [[0]], "y_test of .* has 1 columns, and y_train 2"),
    ],
)
def test_targets_of_a_test_part_must_be_as_those_of_the_training_part(
    tmp_path: Path, kind: str, train: Any, test: Any, says: str
) -> None:
    x = np.zeros((2, 4, 4), np.uint8)
    np.savez(tmp_path / "data.npz", x_train=x[: len(train)], y_train=train, x_test=x[: len(test)], y_test=test)
    with pytest.raises(DataError, match=says):
        load(str(tmp_path / "data.npz"), kind=KINDS[kind])


@pytest.mark.parametrize(
    ("name", "names", "says"),
    [
        ("regression", "value_names", "column 'rare' is the same for all images"),
        ("multi-label", "label_names", "no image has the label 'rare', so it cannot be learned"),
    ],
)
def test_targets_whose_variety_the_split_keeps_from_training_are_refused(
    tmp_path: Path, name: str, names: str, says: str
) -> None:
    y = np.array([[i % 2, i == 2] for i in range(10)], np.uint8)
    file = tmp_path / "data.npz"
    np.savez(file, x=np.arange(160, dtype=np.uint8).reshape(10, 4, 4), y=y, **{names: ["common", "rare"]})  # type: ignore[arg-type]
    trained, refused = [], []
    for seed in range(8):
        try:
            data = task_of(name).load(DataSettings(source=str(file)), 8, seed)
            trained.append(2 in data.split.train)
        except DataError as error:
            refused.append(str(error))
    assert trained
    assert all(trained)
    assert {message.partition(";")[0] for message in refused} == {f"{file}, the part to train with: {says}"}


@pytest.mark.parametrize("kind", ["classes", "labels", "values"])
def test_a_name_that_two_targets_have_is_refused(tmp_path: Path, kind: str) -> None:
    y = np.arange(2) if kind == "classes" else np.eye(2, dtype=int)
    np.savez(tmp_path / "data.npz", x=np.zeros((2, 4, 4), np.uint8), y=y, **{KINDS[kind].names: ["a", "a"]})  # type: ignore[arg-type]
    with pytest.raises(DataError, match=f"{KINDS[kind].names} of .* has 'a' more than once; give each"):
        load(str(tmp_path / "data.npz"), kind=KINDS[kind])


def test_data_with_classes_only_are_refused_by_a_task_with_other_targets() -> None:
    with pytest.raises(DataError, match=r"digits has classes only; expected values: .* an .npz file"):
        load("digits", kind=VALUES)
    assert load("digits", kind=CLASSES).class_names == tuple("0123456789")


def test_masks_are_changed_as_their_images_are() -> None:
    rng = np.random.default_rng(0)
    images = (rng.integers(0, 2, (6, 4, 4)) * 255).repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)[..., None]
    masks = (images[..., 0] > 127).astype(np.uint8)
    seen = to_unit_range(32, 1)
    augmentation = Augmentation(shift=0.2, rotation_degrees=20, zoom=0.2, flip=True, crop_area=0.6)
    draws = augmentation.draw(6, seen, rng)
    changed = augmentation(images, draws, seen)[..., 0]
    followed = MaskView()(masks, seen, augmentation, draws)
    assert set(np.unique(followed)) == {0, 1, VOID}
    certain = (followed != VOID) & ((changed < 64) | (changed > 191))  # not at an edge
    assert certain.mean() > 0.5
    assert ((changed > 127) == followed)[certain].mean() > 0.98
    assert (changed[followed == VOID] == 0).mean() > 0.9
    np.testing.assert_array_equal(MaskView()(masks, seen), masks)


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


@pytest.mark.parametrize("images", [1, 4])
def test_r2_of_targets_that_do_not_vary_compares_errors_to_a_tenth_of_the_training_variance(images: int) -> None:
    task = task_of("regression")
    targets = np.full((images, 1), 0.7)
    assert task.score(targets + 0.2, targets) == pytest.approx(1 - 0.2**2 / 0.1)
    assert task.score(targets, targets) == 1


def test_recall_looks_for_the_class_among_the_nearest_of_all_images() -> None:
    outputs = np.array([[1, 0], [2, 0.1], [0, 1], [0.1, 1], [-1, 0]], np.float32)
    labels = np.array([0, 0, 1, 0, 1])
    first = task_of("embedding")
    assert first.metric.name == "recall@1"
    assert first.score(outputs, labels) == 3 / 5  # not those that point up, which are nearest to each other
    assert first.score_all([(outputs[:2], labels[:2]), (outputs[2:], labels[2:])]) == 3 / 5
    assert TASKS.make(TASKS.settings({"name": "embedding", "recall_at": 4})).score(outputs, labels) == 1  # type: ignore[attr-defined]


def test_mean_iou_is_that_of_outputs_resized_to_the_masks() -> None:
    import tensorflow as tf

    task = task_of("segmentation")
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(3, 4, 3, 3)).astype(np.float32)
    masks = rng.integers(0, 3, (3, 8, 9)).astype(np.uint8)
    masks[0, :2] = VOID
    resized = tf.image.resize(outputs, (8, 9)).numpy().argmax(axis=-1)
    shares = []
    for number in range(3):
        has, said = (masks == number), (resized == number) & (masks != VOID)
        shares.append((has & said).sum() / (has | said).sum())
    assert task.score(outputs, masks) == pytest.approx(np.mean(shares))
    perfect = np.eye(3, dtype=np.float32)[np.array([[[0, 0], [2, 2]]])]
    assert task.score(perfect, np.array([[[0, 0], [2, 2]]])) == 1  # a class that nobody has does not count


def test_an_interval_is_found_by_drawing_examples_again() -> None:
    correct = np.repeat([1.0, 0.0], [80, 20])
    statistics = np.stack([correct, np.ones(100)], axis=1)

    def share(times: Any) -> float:
        total = times @ statistics
        return float(total[0] / total[1])

    low, high = bootstrap_interval(100, share) or (None, None)
    assert (low, high) == (pytest.approx(0.72, abs=0.02), pytest.approx(0.87, abs=0.02))  # 0.8 -+ 1.96 * 0.04
    assert bootstrap_interval(1, lambda times: 1.0) is None


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


# ---------------------------------------------------------------- heads


def dense_space(outputs: int) -> NetworkSpace:
    """A stem and a block of stride 2 each, with the choices of `tiny_space`."""
    space = tiny_space(classes=outputs, input_size=16, channels=3)
    stem, *rest = space.template.parts
    block = ("block", blocks.conv_norm(6, "relu", 3, 2))
    return space.with_template(L.Sequential((stem, block, *rest)))


def test_a_dense_head_joins_several_strides_alike_in_space_and_supernet() -> None:
    task = TASKS.make(TASKS.settings({"name": "segmentation", "stride": 2, "width": 8}))
    space = with_head(dense_space(3), task)
    network = space.decode(ARCHITECTURE)
    assert network.output_shape == (8, 8, 3)
    joined = [node for node in network.nodes if isinstance(node.layer, L.Add)]
    assert [network.input_shapes(node) for node in joined] == [((8, 8, 8), (8, 8, 8))]
    check_supernet(lambda *_: space)


def test_a_dense_network_starts_from_all_layers_of_a_classifier_but_its_head() -> None:
    task = TASKS.make(TASKS.settings({"name": "segmentation", "stride": 2, "width": 8}))
    network = with_head(dense_space(3), task).decode(ARCHITECTURE)
    classifier = dense_space(5).decode(ARCHITECTURE)
    donor = Donor(get_weights(keras_model(classifier, seed=1), classifier), shared=False)
    started, start = donor.start(network, get_weights(keras_model(network, seed=2), network))
    assert start.taken == ("stem.k3.conv", "stem.k3.norm", "pyramid.sum.block.conv", "pyramid.sum.block.norm")
    np.testing.assert_array_equal(started["pyramid.sum.block.conv"][0], donor.weights["block.conv"][0])


def test_a_head_that_has_no_place_is_refused() -> None:
    space = tiny_space(input_size=16)
    with pytest.raises(SpaceError, match=r"stride of 4 or more; set task\.stride"):
        with_head(space, task_of("segmentation"))
    with pytest.raises(SpaceError, match="a Sequential with a classifier at its end"):
        task_of("segmentation").head(L.GlobalAveragePool(), (8, 8, 3))


# ---------------------------------------------------------------- bundles


# How each task's lines of `example_python.py` begin what they print.
PRINTED = {
    "multi-label": "labels:",
    "regression": "right: ",
    "embedding": "embedding: ",
    "segmentation": "background: ",
    "detection": "no objects",
}


@pytest.fixture(scope="module", params=PRINTED)
def delivered(request: pytest.FixtureRequest) -> tuple[RunConfig, NetworkTask, TaskData, TrainedModel]:
    """A network of each task as it is delivered, untrained."""
    config = load_config("smoke", flags={"task.name": request.param}, settings=["target.latency_ms=1"])
    task: Any = open_task(config)
    data = task.load(DataSettings(source=SOURCE), 16, 0)
    network = with_head(dense_space(task.outputs(data)), task).decode(ARCHITECTURE)
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
        golden_examples=data.dataset.stored(data.split.test[:1]),
        space="tiny",
        architecture=str(ARCHITECTURE),
        decisions={},
    )
    bundle = verify_bundle(folder)
    assert max(replay_golden(bundle).values()) < 1
    facts = json.loads((folder / "manifest.json").read_text())["models"]["int8"]
    assert facts[task.metric.name] == pytest.approx(tested.value)
    for table in filter(lambda entry: isinstance(entry, dict), facts["breakdown"].values()):
        assert set(table) == set(data.dataset.class_names)
    for name in ("README.md", "MODEL_CARD.md"):
        text = bundle.files[name].decode()
        assert task.metric.name.lower() in text.lower()
        assert "accuracy" not in text
    command = [sys.executable, "example_python.py", "golden/0.png"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert run.stdout.startswith(PRINTED[task.settings.name])


@pytest.mark.parametrize("preset", ["smoke", "laptop", "few-images", "single-gpu", "full"])
def test_values_and_masks_are_not_taught_by_images_that_no_longer_show_them(preset: str) -> None:
    def changes(task: str) -> Any:
        return load_config(preset, flags={"task.name": task, "data.source": "photos.npz"}).data.augmentation

    values = changes("regression")
    assert (values.shift, values.rotation_degrees, values.zoom, values.flip) == (0, 0, 0, False)
    assert (values.crop_area, values.randaugment) == (1, 0)
    assert changes("segmentation").randaugment == 0
    boxes = changes("detection")
    assert (boxes.randaugment, boxes.rotation_degrees, boxes.crop_area) == (0, 0, 1 if preset == "smoke" else 0.5)
    chosen = load_config(preset, flags={"task.name": "regression"}, settings=["data.augmentation.flip=true"])
    assert chosen.data.augmentation.flip


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("classification", "120 images of 4 classes; "),
        ("multi-label", "120 images with any of 6 labels; "),
        ("regression", "120 images with "),
        ("embedding", "120 images of 4 classes; "),
        ("segmentation", "120 images with masks of "),
        ("detection", "120 images with boxes of 2 classes; "),
    ],
)
def test_what_was_loaded_is_told_in_a_line(name: str, says: str) -> None:
    task, settings = task_of(name), DataSettings(source=SOURCE)
    told = task.describe(settings, task.load(settings, 16, 0))
    assert told.startswith(f"data {SOURCE}: {says}")
    assert told.endswith("40 to test")

"""Object detection: boxes around objects, with a class each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from nas_edge.data.settings import DataSettings
from nas_edge.data.targets import BOXES
from nas_edge.errors import SpaceError
from nas_edge.networks import layers as L
from nas_edge.networks.graph import Shape
from nas_edge.spaces import blocks
from nas_edge.tasks import detections
from nas_edge.tasks.average_precision import Curves, outcomes
from nas_edge.tasks.base import Array, BundleSection, Metric, NetworkTask, Targets, TaskData, TaskSettings
from nas_edge.tasks.classification import labels_file
from nas_edge.tasks.comparing import WILCOXON
from nas_edge.tasks.detection_kotlin import kotlin_sources
from nas_edge.tasks.examples import load_examples
from nas_edge.tasks.pyramid import pyramid

if TYPE_CHECKING:
    from nas_edge.training.settings import OptimizationSettings

AP = Metric("AP", ".2%", (0.0, 1.0), paired_test=WILCOXON)

CLASS_NAMES, PROGRAM = "class_names.txt", "detections.py"

# Distances and scores share one int8 scale. With these constants both have about the same range, -5 to 10: distances
# from a quarter of a location's side to eight sides, and scores up to 0.98 that start at 0.01 as in the paper on focal
# loss (arXiv:1708.02002, section 4.1). A quantisation step of 0.06 is then 1.5% of a distance.
DISTANCE_SCALE, SCORE_SHIFT = 4.0, 4.6

# Locations that learn a box are at most this many of their sides away from its centre.
_NEAR = 1.5
# The largest distance that a location learns, in its sides, if there is a coarser map for larger ones.
_REACH = 4.0
# Weight of the loss of boxes relative to that of scores.
_BOX_WEIGHT = 2.0

# For `same_answer`: the score from which detections count, and the IoU from which two are the same.
_SURE, _SAME = 0.5, 0.8


class DetectionSettings(TaskSettings):
    """Settings of the task."""

    # Rotation makes boxes larger than their objects, and small crops of photographs hold few objects.
    defaults: ClassVar[Mapping[str, Any]] = {
        "data.augmentation.randaugment": 0,
        "data.augmentation.rotation_degrees": 0,
        "data.augmentation.crop_area": 0.5,
        "data.evaluation_crop": 1.0,
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "data.source": "procedural:size=32,classes=4,difficulty=0.1,figures=3,train=1000,test=300",
            "data.augmentation.crop_area": 1.0,
            "space.input_size": 32,
            "task.stride": 4,
            "task.width": 32,
        }
    }

    name: str = "detection"
    stride: int = Field(
        8, ge=1, le=32, description="stride of the finest map: pixels of the input per location, in each direction"
    )
    levels: int = Field(
        3, ge=1, le=5, description="number of maps, each half the size of the one before in each direction"
    )
    width: int = Field(64, ge=8, le=512, description="channels of the head")
    least_score: float = Field(0.05, gt=0, lt=1, description="lowest score of detections that count")
    overlap: float = Field(
        0.6, gt=0, le=1, description="IoU above which the less confident of two boxes of a class is suppressed"
    )
    most: int = Field(100, ge=1, le=1000, description="largest number of detections in an image")


class Detection(NetworkTask):
    """Finds objects: at each location of several maps, the distances to the sides of a box, and a score per class.

    Networks have one output for all locations of all maps; see `detections`, which decodes it to boxes. Targets are
    boxes as `data.boxes` describes them.
    """

    metric = AP
    bootstraps = True
    targets = Targets((None, 6), "float32")
    settings: DetectionSettings

    def load(self, settings: DataSettings, input_size: int, seed: int) -> TaskData:
        """See `Task`."""
        from nas_edge.data.boxes import BoxView

        data = load_examples(settings, input_size, seed, BOXES, mixes=False, moves=False)
        return replace(data, dataset=replace(data.dataset, target_view=BoxView()))

    def outputs(self, data: TaskData | None) -> int:
        """Four distances, and a score per class."""
        assert data is not None
        return 4 + len(data.dataset.class_names)

    def contents(self, data: TaskData) -> str:
        """See `Task`; the number of classes."""
        return f" with boxes of {len(data.dataset.class_names)} classes"

    # ------------------------------------------------------------ networks

    def head(self, template: L.Layer, input_shape: Shape) -> L.Layer:
        """See `NetworkTask`; the features at all strides from `stride` on are joined, then downsampled map by map.

        Each map has its own convolution for the outputs.

        Sources: the joining as in `pyramid`; maps made from one joined map, Li et al., 2022 (arXiv:2203.16527), section
        3; the outputs, Tian et al., 2019 (arXiv:1904.01355), whose scores also include a location's quality.
        """
        found = pyramid(template, input_shape, self.settings.stride, self.settings.width, "detection")
        if input_shape[0] != input_shape[1]:
            raise SpaceError(f"detection requires square inputs, received {list(input_shape[:2])}")
        first = self._first_side(input_shape[0])
        dense = L.sequential(
            pyramid=found.joined,
            resize=L.Resize(first, first),
            heads=self._heads(len(self._sides(first)), found.logits),
        )
        return L.Sequential((*found.early, *dense.parts))

    def _heads(self, maps: int, outputs: L.Conv2D) -> L.Layer:
        own = L.sequential(tower=self._separable(1), outputs=outputs, row=L.FlattenPlaces())
        if maps == 1:
            return own
        return L.Concatenate(own, L.sequential(coarser=self._separable(2), heads=self._heads(maps - 1, outputs)))

    def _separable(self, strides: int) -> L.Sequential:
        made = blocks.separable(self.settings.width, blocks.depthwise_norm(3, "relu", strides))
        return L.Sequential((*made.parts, ("act", L.Activation("relu"))))

    def _first_side(self, input_size: int) -> int:
        """Locations along a side of the finest map."""
        return -(-input_size // self.settings.stride)

    def _sides(self, first: int) -> list[int]:
        """Locations along a side of each map."""
        sides = [first]
        while len(sides) < self.settings.levels and sides[-1] > 1:
            sides.append(-(-sides[-1] // 2))
        return sides

    def _sides_of(self, places: int) -> list[int]:
        """As `_sides`, from the total number of locations."""
        for first in range(1, places + 1):
            sides = self._sides(first)
            if sum(side**2 for side in sides) >= places:
                return sides
        raise AssertionError(places)

    def _rules(self, sides: Sequence[int]) -> dict[str, Any]:
        """The rules that `detections.detect` takes."""
        return {
            "sides": list(sides),
            "distance_scale": DISTANCE_SCALE,
            "score_shift": SCORE_SHIFT,
            "least_score": self.settings.least_score,
            "overlap": self.settings.overlap,
            "most": self.settings.most,
        }

    # ------------------------------------------------------------ losses

    def loss(self, outputs: Any, targets: Any, settings: OptimizationSettings) -> Any:
        """See `NetworkTask`; quality focal loss of scores and GIoU loss of boxes, per location that learns a box.

        The target of a score is the IoU of the location's box with the object's, 0 for other classes and at locations
        without an object. Labels are not smoothed.

        Sources: Li et al., 2020 (arXiv:2006.04388), equation 4; Rezatofighi et al., 2019 (arXiv:1902.09630).
        """
        import tensorflow as tf

        outputs = tf.reshape(outputs, [-1, outputs.shape[1], outputs.shape[-1]])
        wanted, label, learns, counts = self._assigned(outputs.shape[1], targets)
        distances = _distances(outputs)
        iou, giou = _overlaps(distances, wanted)
        learning = tf.cast(learns, tf.float32)
        quality = tf.stop_gradient(iou) * learning
        score = tf.one_hot(label, outputs.shape[-1] - 4) * quality[..., None]
        of_scores = _quality_focal(outputs[..., 4:] - SCORE_SHIFT, score) * tf.cast(counts, tf.float32)[..., None]
        of_boxes = (1.0 - giou) * learning
        number = tf.maximum(tf.reduce_sum(learning), 1.0)
        return (tf.reduce_sum(of_scores) + _BOX_WEIGHT * tf.reduce_sum(of_boxes)) / number

    def _assigned(self, places: int, targets: Any) -> tuple[Any, Any, Any, Any]:
        """What each location learns, `[batch, places, ...]`.

        Returns:
            Distances to the sides of a box, in sides of the location; the class; whether there is a box to learn; and
            whether the scores count, which they do not inside ignored boxes.

        Source: Tian et al., 2019 (arXiv:1904.01355), section 3.2, where maps cover distances twice as large, and centre
        sampling as in its revision of 2020 (arXiv:2006.09214).
        """
        import tensorflow as tf

        sides = self._sides_of(places)
        points, lengths = (part[:, None] for part in detections.centres(sides))  # [places, 1, ...]
        reach = np.repeat(np.array([_REACH / side for side in sides[:-1]] + [np.inf], np.float32), np.square(sides))
        least = np.repeat(np.array([0.0] + [_REACH / side for side in sides[:-1]], np.float32), np.square(sides))
        label, box, ignored = targets[:, None, :, 0], targets[:, None, :, 1:5], targets[:, None, :, 5]
        away = tf.concat([points - box[..., :2], box[..., 2:] - points], axis=-1)  # [batch, places, boxes, 4]
        inside = tf.reduce_min(away, axis=-1) > 0
        farthest = tf.reduce_max(away, axis=-1)
        off_centre = tf.reduce_max(tf.abs(points - (box[..., :2] + box[..., 2:]) / 2), axis=-1)
        fits = (farthest > least[:, None]) & (farthest <= reach[:, None]) & (off_centre <= _NEAR * lengths)
        fits &= inside & (label >= 0) & (ignored == 0)
        size = (box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1])
        chosen = tf.argmin(tf.where(fits, size, np.inf), axis=-1, output_type=tf.int32)  # the smallest of several
        learns = tf.reduce_any(fits, axis=-1)
        wanted = tf.gather(away, chosen, batch_dims=2) / lengths
        of_class = tf.cast(tf.gather(targets[..., 0], chosen, batch_dims=1), tf.int32)
        counts = learns | ~tf.reduce_any(inside & (label >= 0) & (ignored > 0), axis=-1)
        # At locations that learn no box, distances may be negative.
        return tf.where(learns[..., None], wanted, 1.0), of_class, learns, counts

    def distillation_loss(self, outputs: Any, answers: Any, temperature: float) -> Any:
        """See `NetworkTask`; quality focal loss towards the teacher's scores, and distances weighted by its confidence.

        The temperature is not used: scores are soft already.
        """
        import tensorflow as tf

        scores = tf.sigmoid(answers[..., 4:] - SCORE_SHIFT)
        sure = tf.reduce_max(scores, axis=-1)
        of_scores = tf.reduce_sum(_quality_focal(outputs[..., 4:] - SCORE_SHIFT, scores))
        apart = tf.reduce_mean(tf.abs(outputs[..., :4] - answers[..., :4]), axis=-1) / DISTANCE_SCALE
        return (of_scores + _BOX_WEIGHT * tf.reduce_sum(apart * sure)) / tf.maximum(tf.reduce_sum(sure), 1.0)

    # ------------------------------------------------------------ how good it is

    def statistics(self, outputs: Array, targets: Array) -> Array:
        """The outcomes of all detections and the numbers of boxes, see `average_precision.outcomes`."""
        return np.concatenate(self._outcomes(outputs, targets))

    def join(self, statistics: Sequence[Array]) -> Array:
        """All of them in a row."""
        return np.concatenate(statistics)

    def quality(self, statistics: Array) -> float:
        """Average precision, 0 to 1: the mean over classes and IoU thresholds of 0.5 to 0.95."""
        return _curves(statistics).mean(_ONCE)

    def drawn_again(self, each: Sequence[Array]) -> Callable[[Array], float]:
        """See `NetworkTask`."""
        images = np.repeat(np.arange(len(each)), [len(rows) for rows in each])
        return Curves(np.concatenate(each), images).mean

    def example_scores(self, outputs: Array, targets: Array) -> Array:
        """Average precision in each image, `[n]`; without objects, 1 if nothing is detected with a score of 0.5."""
        scores = []
        for rows in self._outcomes(outputs, targets):
            known = _curves(rows).by_class(_ONCE)
            nothing = not ((rows[:, 1] >= _SURE) & (rows[:, 2] == 0)).any()
            scores.append(float(np.mean(list(known.values()))) if known else float(nothing))
        return np.array(scores)

    def breakdown(self, outputs: Array, targets: Array) -> Array:
        """The statistics, from which all of it follows."""
        return self.statistics(outputs, targets)

    def join_breakdowns(self, breakdowns: Sequence[Array]) -> Array:
        """All of them in a row."""
        return np.concatenate(breakdowns)

    def describe_breakdown(self, total: Array, data: TaskData) -> Mapping[str, Any]:
        """AP at an IoU of 0.5, and AP, AP50 and number of boxes of each class."""
        known = _curves(total).by_class(_ONCE)
        boxes = {label: int(total[(total[:, 0] == label) & (total[:, 1] < 0), 2].sum()) for label in known}
        nothing = {"AP": None, "AP50": None, "boxes": 0}
        return {
            "AP50": _rounded(np.mean([found[0] for found in known.values()])) if known else None,
            "classes": {
                name: {"AP": float(known[i].mean()), "AP50": _rounded(known[i][0]), "boxes": boxes[i]}
                if i in known
                else nothing
                for i, name in enumerate(data.dataset.class_names)
            },
        }

    def same_answer(self, first: Array, second: Array) -> float:
        """Share of images with the same detections of score 0.5 or more: equal classes, boxes with an IoU of 0.8."""
        rules = {**self._rules(self._sides_of(first.shape[1])), "least_score": _SURE}
        pairs = ([detections.detect(one, rules) for one in pair] for pair in zip(first, second, strict=True))
        return float(np.mean([_has_all(one, other) and _has_all(other, one) for one, other in pairs]))

    def _outcomes(self, outputs: Array, targets: Array) -> list[Array]:
        rules = self._rules(self._sides_of(outputs.shape[1]))
        return [outcomes(detections.detect(one, rules), boxes) for one, boxes in zip(outputs, targets, strict=True)]

    # ------------------------------------------------------------ bundles

    def bundle_section(self, data: TaskData) -> BundleSection:
        """See `NetworkTask`."""
        names = data.dataset.class_names
        sides = self._sides(self._first_side(data.preprocessing.shape[0]))
        rules, places = self._rules(sides), sum(side**2 for side in sides)
        maps = ", ".join(f"{side} x {side}" for side in sides)
        return BundleSection(
            title="object detector",
            says=f"finds objects of {len(names)} classes (`{CLASS_NAMES}`, one per line, in the order of the scores)",
            answer=f"for each of {places} locations, on maps of {maps}, four distances and a score per class, which "
            f"`{PROGRAM}`, or `Detections.kt` on Android, decodes to boxes, in fractions of the square that was cut "
            "out of the image; what lies outside it is not seen",
            output="output",
            output_shape=(places, 1, 4 + len(names)),
            snippet=(
                "from detections import detect\n"
                f'names = (FOLDER / "{CLASS_NAMES}").read_text(encoding="utf-8").splitlines()\n'
                f"rules = {json.dumps(rules)}\n"
                "found = list(zip(*detect(outputs, rules)))\n"
                "for (left, top, right, bottom), label, score in found:\n"
                '    print(f"{names[label]}: {score:.0%} at {left:.3f} {top:.3f} {right:.3f} {bottom:.3f}")\n'
                "if not found:\n"
                '    print("no objects")'
            ),
            files={
                CLASS_NAMES: labels_file(names),
                PROGRAM: Path(detections.__file__).read_bytes(),
            },
            manifest={"classes": len(names), "detection": rules},
            android=kotlin_sources(rules),
        )


_ONCE = np.ones(1, np.int64)


def _curves(rows: Array) -> Curves:
    """Curves of rows that all count once."""
    return Curves(rows, np.zeros(len(rows), np.int64))


def _rounded(value: Any) -> float:
    return float(f"{value:.4f}")


def _has_all(one: tuple[Array, Array, Array], other: tuple[Array, Array, Array]) -> bool:
    """Whether every detection of one has a match in the other."""
    alike = (one[1][:, None] == other[1][None]) & (detections.overlaps(one[0], other[0]) >= _SAME)
    return bool(alike.any(axis=1).all())


def _distances(outputs: Any) -> Any:
    """Distances in sides of the location, from outputs `[..., 4 or more]`."""
    import tensorflow as tf

    return tf.exp(tf.clip_by_value(outputs[..., :4] / DISTANCE_SCALE, -20.0, 20.0))


def _overlaps(first: Any, second: Any) -> tuple[Any, Any]:
    """IoU and generalised IoU of boxes given by positive distances from one point, `[..., 4]`."""
    import tensorflow as tf

    shared, around = tf.minimum(first, second), tf.maximum(first, second)
    both, enclosing = _area(shared), _area(around)
    either = _area(first) + _area(second) - both
    iou = both / tf.maximum(either, 1e-9)
    return iou, iou - (enclosing - either) / tf.maximum(enclosing, 1e-9)


def _area(distances: Any) -> Any:
    return (distances[..., 0] + distances[..., 2]) * (distances[..., 1] + distances[..., 3])


def _quality_focal(logits: Any, quality: Any) -> Any:
    import tensorflow as tf

    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=quality, logits=logits)
    return tf.square(quality - tf.sigmoid(logits)) * losses

"""The Kotlin sources of a detector's bundle: decoding of outputs to boxes, and a test against `detections.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nas_edge.tasks import detections

_PROGRAM, _TEST = "Detections.kt", "DetectionsTest.kt"


def kotlin_sources(rules: Mapping[str, Any]) -> dict[str, bytes]:
    """Sources by source set and name, see `BundleSection.android`.

    Args:
        rules: of the detector, see `detections.detect`.
    """
    kept = Path(__file__).with_name("android")
    return {
        f"main/{_PROGRAM}": (kept / _PROGRAM).read_bytes(),
        "main/ModelDetections.kt": _model(rules).encode(),
        f"test/{_TEST}": (kept / _TEST).read_bytes(),
        "test/DetectionsCase.kt": _case(rules).encode(),
    }


def _constructed(rules: Mapping[str, Any]) -> str:
    numbers = ", ".join(
        f"{float(rules[name])!r}f" for name in ("distance_scale", "score_shift", "least_score", "overlap")
    )
    return f"Detections(intArrayOf({', '.join(map(str, rules['sides']))}), {numbers}, {int(rules['most'])})"


def _model(rules: Mapping[str, Any]) -> str:
    return f"""package ai.nasedge.example

/** Decodes this model's outputs to boxes; generated with it. */
object ModelDetections {{
    private val detections = {_constructed(rules)}

    /** The objects in one image, the most confident first; classes are numbered as in `class_names.txt`. */
    fun of(outputs: FloatArray): List<Detected> = detections.of(outputs)
}}
"""


def _case(rules: Mapping[str, Any]) -> str:
    """A test case: outputs of two maps and two classes, with overlapping boxes among them, and the detections."""
    some = {**rules, "sides": [2, 1], "least_score": 0.05}
    outputs = np.random.default_rng(3).normal(size=(5, 6)).astype(np.float32) * np.float32(3)
    outputs[0], outputs[1] = (-20, -20, 4, 4, 6, 1), (0, -20, -3, 4, 5, -9)  # the second is suppressed
    boxes, labels, scores = detections.detect(outputs, some)
    expected = np.concatenate([boxes, labels[:, None], scores[:, None]], axis=1)
    return f"""package ai.nasedge.example

/** Outputs of a small detector, and what `detections.py` finds in them; generated. */
object DetectionsCase {{
    val detections = {_constructed(some)}

    val OUTPUTS = floatArrayOf(
{_rows(outputs)}
    )

    /** Left, top, right, bottom, class and score of each. */
    val EXPECTED = floatArrayOf(
{_rows(expected)}
    )
}}
"""


def _rows(values: Iterable[Any]) -> str:
    return ",\n".join(f"        {', '.join(f'{float(value):.6f}f' for value in row)}" for row in values)

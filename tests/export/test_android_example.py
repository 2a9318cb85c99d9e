"""The Kotlin example of a bundle: compiled, and its preprocessing run, where a Kotlin compiler is installed.

Neither Android nor LiteRT's classes are to be had here: `tests/support/kotlin_stubs` stands in for them, and nothing
here says that a phone runs the example.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nas_edge.data.dataset import EncodedImage
from nas_edge.data.log_mel import LogMel
from nas_edge.data.preprocessing import ImagePreprocessing, Preprocessing
from nas_edge.errors import ExportError
from nas_edge.export.bundle import DeliveredModel, write_bundle
from nas_edge.export.convert import float32_tflite
from nas_edge.export.example_files import example_files
from nas_edge.networks.keras_model import keras_model
from nas_edge.tasks.classification import ACCURACY, labels_section
from nas_edge.tasks.detection_kotlin import kotlin_sources
from tests.support.exported import LABELS, Exported, tiny_spec

STUBS = Path(__file__).parents[1] / "support" / "kotlin_stubs"
# Runs the test of what a detector's bundle has besides.
DETECTIONS = """import ai.nasedge.example.DetectionsTest

object RunDetections {
    @JvmStatic
    fun main(arguments: Array<String>) {
        DetectionsTest().findsWhatThePythonProgramFinds()
        println("found as in Python")
    }
}
"""
RULES = {"sides": [4, 2], "distance_scale": 4, "score_shift": 4.6, "least_score": 0.05, "overlap": 0.6, "most": 100}
MODULE = "example_android/model/src"
MAIN = f"{MODULE}/main/kotlin/ai/nasedge/example"


def photographs_of(preprocessing: ImagePreprocessing) -> list[EncodedImage]:
    rng = np.random.default_rng(0)
    photographs = []
    for width, height in ((40, 31), (9, 14), (12, 12)):
        stream = io.BytesIO()
        pixels = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        Image.fromarray(pixels[..., 0] if preprocessing.channels == 1 else pixels).save(stream, "PNG")
        photographs.append(EncodedImage(stream.getvalue(), "photograph"))
    return photographs


def bundle_of(
    float32: bytes, int8: bytes | None, folder: Path, preprocessing: Preprocessing, examples: Sequence[Any]
) -> Path:
    return write_bundle(
        folder,
        models={"float32": DeliveredModel(float32)} | ({} if int8 is None else {"int8": DeliveredModel(int8)}),
        precision="float32" if int8 is None else "int8",
        section=replace(labels_section(LABELS), android=kotlin_sources(RULES)),
        metric=ACCURACY,
        preprocessing=preprocessing,
        golden_examples=examples,
        space="tiny",
        architecture="0:1",
        decisions={},
    ).folder


def test_what_is_specific_to_the_model_is_generated(exported: Exported, tmp_path: Path) -> None:
    preprocessing = ImagePreprocessing(12, 1, (127.5,), (60.0,), 0.875, "bicubic")
    photographs = photographs_of(preprocessing)
    folder = bundle_of(exported.float32, exported.int8, tmp_path / "bundle", preprocessing, photographs)
    facts = (folder / MAIN / "ModelFacts.kt").read_text()
    assert 'const val FILE = "model_int8.tflite"' in facts
    assert "const val GOLDEN_EXAMPLES = 3" in facts
    assert "Preprocessing(12, MEAN, STD, 0.875, true)" in facts
    assert re.search(r"OUTPUT_SCALE = [\d.e-]+f\n", facts)
    sources = sorted((folder / "example_android").rglob("*.kt"))
    assert {path.name for path in sources} >= {"EdgeModel.kt", "Preprocessing.kt", "EdgeModelTest.kt", "Detections.kt"}
    assert (folder / MODULE / "test/kotlin/ai/nasedge/example/DetectionsTest.kt") in sources
    for path in sources:
        text = path.read_text()
        assert text.count("{") == text.count("}"), path.name
        assert text.startswith("package ai.nasedge.example\n"), path.name


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("kotlinc") is None, reason="no Kotlin compiler (Debian's package kotlin)")
@pytest.mark.parametrize("kind", ["grey", "colour", "log-mel"])
def test_the_example_compiles_and_preprocesses_as_in_training(exported: Exported, tmp_path: Path, kind: str) -> None:
    folder, example = tmp_path / "bundle", "image"
    if kind == "colour":
        colour = ImagePreprocessing(12, 3, (120.0, 110.0, 100.0), (60.0, 50.0, 40.0), 0.875, "bicubic")
        bundle_of(float32_tflite(keras_model(tiny_spec(3), seed=1)), None, folder, colour, photographs_of(colour))
    elif kind == "grey":
        grey = ImagePreprocessing(12, 1, (120.0,), (60.0,))
        bundle_of(exported.float32, exported.int8, folder, grey, photographs_of(grey))
    else:
        example, rng = "recording", np.random.default_rng(0)
        log_mel = LogMel(12, 4000, 2000, 160, 20.0, 2000.0, mean=(-50.0,), std=(12.0,))
        recordings = [rng.normal(0, 0.1, samples).astype(np.float32) for samples in (1001, 2000, 3001)]
        bundle_of(exported.float32, exported.int8, folder, log_mel, recordings)
    sources = [str(path) for path in (*STUBS.glob("*.kt"), *(folder / MODULE).rglob("*.kt"))]
    (tmp_path / "RunDetections.kt").write_text(DETECTIONS)
    sources.append(str(tmp_path / "RunDetections.kt"))
    program = tmp_path / "example.jar"
    built = subprocess.run(
        ["kotlinc", *sources, "-include-runtime", "-d", str(program)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    run = ["java", f"-Dbundle={folder}", "-cp", str(program), "MainKt"]
    ran = subprocess.run(run, capture_output=True, text=True, check=False)
    assert ran.stdout == "preprocessed as recorded\n", ran.stderr
    detects = ["java", "-cp", str(program), "RunDetections"]
    ran = subprocess.run(detects, capture_output=True, text=True, check=False)
    assert ran.stdout == "found as in Python\n", ran.stderr
    np.save(folder / "golden/0_input.npy", np.load(folder / "golden/0_input.npy") + np.float32(0.05))
    assert f"{example} 0, value 0" in subprocess.run(run, capture_output=True, text=True, check=False).stderr


@pytest.mark.parametrize(
    "name", ["Own.kt", "main/../Own.kt", "main/EdgeModel.kt", "main/Own.java", "test/PreprocessingTest.kt"]
)
def test_a_tasks_sources_have_plain_names_of_their_own(name: str) -> None:
    manifest = {
        "models": {"int8": {"file": "m", "tolerance": 1, "output": {"dtype": "int8", "scale": 1, "zero_point": 0}}},
        "preprocessing": ImagePreprocessing(12, 1, (120.0,), (60.0,)).manifest(),
        "golden": [],
    }
    section = replace(labels_section(LABELS), android={name: b""})
    with pytest.raises(ExportError, match="invalid name of a task's Kotlin source"):
        example_files(manifest, "int8", section)

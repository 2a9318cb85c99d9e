"""The programs of a bundle: `example_python.py`, `verify.py` and the Kotlin module in `example_android/`.

They are kept as files in `app_files/`, and are the same in every bundle, except for the lines that print a task's
answer, `ModelFacts.kt`, which is written here, and the code that makes inputs: `preprocessing.py` and its Kotlin
counterpart are in `app_files/inputs/`, by kind of input.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nas_edge.errors import ExportError
from nas_edge.export.inputs import INPUTS
from nas_edge.tasks.base import BundleSection

EXAMPLE, PREPROCESSING, VERIFY, ANDROID = "example_python.py", "preprocessing.py", "verify.py", "example_android"
_SOURCES = f"{ANDROID}/model/src/{{}}/kotlin/ai/nasedge/example/{{}}"
_FACTS = _SOURCES.format("main", "ModelFacts.kt")
_SOURCE = re.compile(r"(main|test|androidTest)/\w+\.kt")
_ANSWER = "    print(outputs)  # replaced by the task's own lines\n"


def example_files(manifest: Mapping[str, Any], precision: str, section: BundleSection) -> dict[str, bytes]:
    """Files by their names within a bundle.

    Args:
        manifest: of the bundle.
        precision: of the model that the examples run.
        section: what the task says, with its own lines of Python and sources in Kotlin.

    Raises:
        ExportError: for a source with an invalid name, or that of another file.
    """
    kept = Path(__file__).with_name("app_files")
    program = (kept / EXAMPLE).read_text(encoding="utf-8")
    assert program.count(_ANSWER) == 1
    answer = textwrap.indent(section.snippet.rstrip("\n") + "\n", "    ")
    inputs = kept / "inputs" / manifest["preprocessing"]["kind"].replace("-", "_")
    files = {
        EXAMPLE: program.replace(_ANSWER, answer).encode(),
        PREPROCESSING: (inputs / PREPROCESSING).read_bytes(),
        VERIFY: (kept / VERIFY).read_bytes(),
        _FACTS: _model_facts(manifest, precision).encode(),
    }
    for folder in (kept / "android", inputs / "android"):
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                files[f"{ANDROID}/{path.relative_to(folder).as_posix()}"] = path.read_bytes()
    for name, content in section.android.items():
        path_within = _SOURCES.format(*name.split("/", 1)) if _SOURCE.fullmatch(name) else ""
        if not path_within or path_within in files:
            raise ExportError(
                f"invalid name of a task's Kotlin source: {name!r}",
                expected="main/NAME.kt, test/NAME.kt or androidTest/NAME.kt, with a name of its own",
            )
        files[path_within] = content
    return files


def _model_facts(manifest: Mapping[str, Any], precision: str) -> str:
    model, rules = manifest["models"][precision], manifest["preprocessing"]
    result = model["output"]
    mean, std = (", ".join(f"{float(value)!r}f" for value in rules[key]) for key in ("mean", "std"))
    return f"""package ai.nasedge.example

/** What is specific to the model; generated with it. */
object ModelFacts {{
    const val FILE = "{model["file"]}"
    const val PRECISION = "{precision}"
    const val GOLDEN_EXAMPLES = {len(manifest["golden"])}

    /** The largest difference of an output from the recorded one. */
    const val TOLERANCE = {float(model["tolerance"])!r}f
    const val OUTPUT_BYTES = {np.dtype(result["dtype"]).itemsize}
    const val OUTPUT_SCALE = {float(result["scale"] or 1)!r}f
    const val OUTPUT_ZERO_POINT = {int(result["zero_point"] or 0)}

    val MEAN = floatArrayOf({mean})
    val STD = floatArrayOf({std})

    fun preprocessing() = {INPUTS[rules["kind"]].kotlin(rules)}
}}
"""

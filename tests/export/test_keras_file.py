"""Keras models that somebody else made are exported, or refused with the reason and the name of the layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from nas_edge.cli import nas_edge
from nas_edge.errors import ExportError
from nas_edge.export.bundle import replay_golden, verify_bundle
from nas_edge.export.keras_file import culprit, load_keras_file
from nas_edge.export.quantize import quantized_tflite
from nas_edge.networks.keras_model import keras_model
from nas_edge.testing.trainings import small_network


class Doubled(keras.layers.Layer):  # type: ignore[misc]
    def call(self, inputs: Any) -> Any:
        return 2 * inputs


class Subclassed(keras.Model):  # type: ignore[misc]
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.head = keras.layers.Dense(10)

    def call(self, inputs: Any) -> Any:
        return self.head(keras.ops.mean(inputs, [1, 2]))


def swishy(x: Any) -> Any:
    return x * x


def saved(model: keras.Model, folder: Path) -> Path:
    model.save(folder / "model.keras")
    return folder / "model.keras"


def classifier(
    *layers: keras.layers.Layer, shape: tuple[int | None, ...] = (8, 8, 1), classes: int = 10
) -> keras.Model:
    keras.utils.set_random_seed(0)
    source = values = keras.Input(shape, name="image")
    for layer in (*layers, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(classes, name="head")):
        values = layer(values)
    return keras.Model(source, values)


def two_inputs() -> keras.Model:
    left, right = keras.Input((8, 8, 1), name="left"), keras.Input((8, 8, 1), name="right")
    return keras.Model([left, right], keras.layers.Dense(10)(keras.layers.Flatten()(left + right)))


def subclassed() -> keras.Model:
    model = Subclassed()
    model(np.zeros((1, 8, 8, 3), np.float32))
    return model


REFUSED: list[tuple[Any, str]] = [
    (lambda: classifier(Doubled(name="twice")), "its layer 'twice' needs Doubled, whose code is not in the file"),
    (lambda: classifier(keras.layers.Conv2D(2, 3, activation=swishy, name="c")), "its layer 'c' needs swishy"),
    (lambda: classifier(keras.layers.Lambda(lambda x: x + 1, name="plus")), "its layer 'plus' is a Lambda"),
    (subclassed, "is of the class Subclassed, a subclassed model"),
    (two_inputs, r"it has 2 inputs \('left', 'right'\); expected one input"),
    (lambda: classifier(shape=(None, None, 3)), r"its input 'image' is \[any, any, 3\]; expected \[size, size"),
    (lambda: classifier(keras.Sequential([Doubled(name="deep")])), "its layer 'deep' needs Doubled"),
]


@pytest.mark.parametrize(("make", "why"), REFUSED)
def test_what_cannot_be_exported_is_refused_with_the_reason(make: Any, why: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=why):
        load_keras_file(saved(make(), tmp_path))


@pytest.mark.parametrize("content", [b"", b"PK not a zip", None])
def test_another_file_is_refused(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "model.keras"
    if content is None:
        np.savez(tmp_path / "model.npz", x=np.zeros(3))
        (tmp_path / "model.npz").rename(file)
    else:
        file.write_bytes(content)
    with pytest.raises(ExportError, match=r"model.keras is not a model that Keras 3 saved"):
        load_keras_file(file)


def test_models_of_this_project_and_nested_ones_load(tmp_path: Path) -> None:
    model = classifier(keras.Sequential([keras.layers.Conv2D(4, 3, activation="relu")]))
    assert load_keras_file(saved(model, tmp_path)).count_params() == model.count_params()
    own = keras_model(small_network())
    assert load_keras_file(saved(own, tmp_path)).count_params() == own.count_params()


def test_the_layer_that_cannot_be_converted_is_found() -> None:
    class Erf(keras.layers.Layer):  # type: ignore[misc]
        def call(self, inputs: Any) -> Any:
            return keras.ops.erf(inputs)

    model = classifier(keras.layers.Conv2D(2, 3), Erf(name="odd_one"), keras.layers.ReLU(), keras.layers.ReLU())

    def convert(part: keras.Model) -> bytes:
        return quantized_tflite(part, "float32", lambda: [])

    with pytest.raises(ExportError, match="converter failed"):
        convert(model)
    assert culprit(model, convert) == "odd_one"


def test_a_functional_model_becomes_a_bundle_in_a_process_of_its_own(tmp_path: Path) -> None:
    layers = (keras.layers.Rescaling(1 / 16), keras.layers.Conv2D(8, 3, 2, activation="relu"))
    file, out = saved(classifier(*layers), tmp_path), tmp_path / "bundle"
    asked = ["export", str(file), "--data", "digits", "--precision", "int8-float-io", "--out", str(out)]
    measuring = (
        "preset=search",
        "patience_s=0",
        "max_risk=1",
        "max_duration_s=0.5",
    )  # how long it takes is not the point
    asked += [part for setting in measuring for part in ("--set", f"final_measure.{setting}")]
    result = CliRunner().invoke(nas_edge, asked)
    assert result.exit_code == 0, result.output
    bundle = verify_bundle(out)
    assert set(bundle.models) == {"float32", "int8-float-io"}
    assert bundle.manifest["space"] == "model.keras"
    assert bundle.manifest["details"]["representative"]["images"] == 256
    assert bundle.manifest["models"]["int8-float-io"]["input"]["dtype"] == "float32"
    assert bundle.manifest["preprocessing"]["mean"] == [0.0]
    replay_golden(bundle)
    assert "int8-float-io: " in result.output
    json.dumps(bundle.manifest)


def test_a_refusal_in_that_process_is_one_line_and_writes_nothing(tmp_path: Path) -> None:
    file = saved(classifier(classes=7), tmp_path)
    result = CliRunner().invoke(nas_edge, ["export", str(file), "--data", "digits", "--out", str(tmp_path / "bundle")])
    assert result.exit_code == 1
    assert "its output" in str(result.exception or result.output)
    assert "has 7 values, and digits has 10 classes" in str(result.exception or "") + result.output
    assert not (tmp_path / "bundle").exists()


def test_options_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    for asked, why in (
        (["export", "m.keras", "--out", "b"], "--data is missing"),
        (["export", "run", "--data", "digits", "--out", "b"], "--data and --set go with a .keras file"),
    ):
        result = CliRunner().invoke(nas_edge, asked)
        assert result.exit_code == 2
        assert why in result.output

"""Files of weights that Keras saved, also such as somebody means harm with."""

from __future__ import annotations

import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from nas_edge.errors import ConfigError
from nas_edge.networks.keras_model import get_weights, keras_model
from nas_edge.networks.weights_file import read_keras_weights
from nas_edge.testing.trainings import small_network

NETWORK = small_network()


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return keras_model(NETWORK, seed=5)


@pytest.mark.parametrize("name", ["net.weights.h5", "net.keras"])
def test_what_keras_saved_is_read_by_the_names_of_layers(tmp_path: Path, model: keras.Model, name: str) -> None:
    path = tmp_path / name
    model.save_weights(path) if name.endswith(".h5") else model.save(path)
    found, expected = read_keras_weights(path), get_weights(model, NETWORK)
    assert {layer: len(arrays) for layer, arrays in expected.items()}.items() <= {
        layer: len(arrays) for layer, arrays in found.items()
    }.items()
    for layer, arrays in expected.items():
        for array, kept in zip(arrays, found[layer], strict=True):
            np.testing.assert_array_equal(array, kept)


def test_links_into_other_files_are_not_followed(tmp_path: Path, model: keras.Model) -> None:
    path = tmp_path / "net.weights.h5"
    model.save_weights(tmp_path / "other.weights.h5")
    model.save_weights(path)
    with h5py.File(path, "a") as file:
        name = next(key for key in file["layers"] if "conv" in key)
        file["layers"][name]["vars"].pop("0")
        file["layers"][name]["vars"]["0"] = h5py.ExternalLink("other.weights.h5", f"/layers/{name}/vars/0")
        file["more"] = h5py.ExternalLink("other.weights.h5", "/layers")
    whole, found = read_keras_weights(tmp_path / "other.weights.h5"), read_keras_weights(path)
    assert set(whole) - set(found) == {"stem.conv"}


@pytest.mark.parametrize("name", ["net.weights.h5", "net.keras"])
def test_a_damaged_file_is_an_error_in_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"neither of them")
    with pytest.raises(ConfigError, match=r"^cannot read .*: .*; expected a file that Keras saved") as error:
        read_keras_weights(path)
    assert "\n" not in str(error.value)
    assert "Traceback" not in str(error.value)


def test_a_file_without_layers_is_an_error(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "net.weights.h5", "w") as file:
        file["values"] = np.zeros(3)
    with pytest.raises(ConfigError, match="it has no weights of named layers"):
        read_keras_weights(tmp_path / "net.weights.h5")
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as packed:
        packed.writestr("config.json", "{}")
    with pytest.raises(ConfigError, match=r"model\.weights\.h5"):
        read_keras_weights(tmp_path / "net.keras")

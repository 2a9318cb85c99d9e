"""Keyword spotting: recordings go all the way to a bundle that proves itself without Pillow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas_edge.config import RunConfig, load_config
from nas_edge.data.recordings import wav_file
from nas_edge.data.settings import DataSettings
from nas_edge.errors import ConfigError, DataError
from nas_edge.export.bundle import DeliveredModel, verify_bundle, write_bundle
from nas_edge.networks.keras_model import get_weights, keras_model
from nas_edge.stages.contender import Contender
from nas_edge.stages.context import open_task
from nas_edge.stages.delivering import TrainedModel, convert
from nas_edge.tasks.base import NetworkTask, TaskData
from tests.support.spaces import tiny_space

SOURCE = "procedural:classes=4,difficulty=0.1,train=60,test=20"
RATE = 4000


def config_of(*settings: str, preset: str = "smoke", source: str = SOURCE) -> RunConfig:
    flags = {"task.name": "keyword-spotting", "data.source": source, "task.sample_rate_hz": RATE}
    return load_config(preset, flags=flags, settings=["target.latency_ms=1", *settings])


def load(config: RunConfig) -> tuple[NetworkTask, TaskData]:
    task: Any = open_task(config)
    return task, task.load(config.data, 16, 0)


def test_inputs_are_standardised_spectrograms() -> None:
    task, data = load(config_of("task.clip_ms=500", "task.window_ms=30"))
    assert data.preprocessing.manifest() | {"mean": 0, "std": 0} == {
        "kind": "log-mel", "input_size": 16, "channels": 1, "sample_rate_hz": RATE, "clip_samples": 2000, "frames": 16,
        "window_samples": 120, "window": "hann, periodic", "fft_samples": 128, "mel_bands": 16, "low_hz": 20.0,
        "high_hz": 2000.0, "floor_db": -80.0, "formula": "(dB - mean) / std", "mean": 0, "std": 0,
    }  # fmt: skip
    inputs, targets = data.arrays(data.split.train)
    assert inputs.shape[1:] == (16, 16, 1)
    assert abs(inputs.mean()) < 1e-3
    assert inputs.std() == pytest.approx(1, abs=1e-3)
    assert set(targets) == set(range(4))
    assert task.describe(DataSettings(source=SOURCE), data) == (
        f"data {SOURCE}: 80 recordings of 4 keywords; 52 to train with, 8 to score architectures, 20 to test"
    )


@pytest.mark.parametrize("preset", ["smoke", "laptop", "few-images", "single-gpu", "full"])
def test_no_preset_changes_recordings_as_photographs(preset: str) -> None:
    data = config_of(preset=preset).data
    changes = data.augmentation
    assert (changes.shift, changes.rotation_degrees, changes.zoom, changes.flip) == (0.1, 0, 0, False)
    assert (changes.crop_area, changes.randaugment, changes.erasing, data.evaluation_crop) == (1, 0, 0, 1)


@pytest.mark.parametrize(
    ("setting", "because"),
    [
        (
            "data.augmentation.flip=true",
            r"flip applies to images, .* received True; --set data\.augmentation\.flip=false",
        ),
        ("data.augmentation.randaugment=2", "randaugment applies to images"),
        ("data.evaluation_crop=0.9", "evaluation_crop applies to images"),
        ("task.high_hz=3000", "mel bands must lie within 0 to 2000 Hz"),
        ("task.window_ms=2000", "windows no longer than the clip"),
    ],
)
def test_what_recordings_do_not_have_is_refused(setting: str, because: str) -> None:
    with pytest.raises(ConfigError, match=because):
        load(config_of(setting))


def test_silence_teaches_nothing(tmp_path: Path) -> None:
    for word in ("no", "yes"):
        (tmp_path / word).mkdir()
        for i in range(4):
            (tmp_path / word / f"{i}.wav").write_bytes(wav_file(np.zeros(100, np.float32), RATE))
    with pytest.raises(DataError, match="are all silent"):
        load(config_of(source=str(tmp_path)))


@pytest.fixture(scope="module")
def delivered() -> tuple[NetworkTask, TaskData, TrainedModel]:
    """A network as it is delivered, untrained."""
    config = config_of()
    task, data = load(config)
    space = tiny_space(input_size=16, classes=task.outputs(data), channels=1)
    network = space.decode(space.sample(np.random.default_rng(0)))
    weights = get_weights(keras_model(network), network)
    return task, data, convert(config, task, data, Contender("winner", "0", None, network), weights)


def test_a_bundle_proves_itself(delivered: Any, tmp_path: Path) -> None:
    task, data, model = delivered
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
        golden_examples=data.dataset.stored(data.split.test[:2]),
        space="tiny",
        architecture="0",
        decisions={},
        details={"test_images": 20},
    )
    bundle = verify_bundle(folder)
    assert {"golden/0.wav", "golden/1.wav", "preprocessing.py"} <= set(bundle.files)
    assert bundle.manifest["golden"] == ["golden/0.wav", "golden/1.wav"]
    for name in ("README.md", "MODEL_CARD.md"):
        text = bundle.files[name].decode()
        assert "keyword" in text
        assert "20 recordings" in text
        assert not any(word in text.lower() for word in ("image", "pillow", "pixel"))
    (table,) = (one for one in bundle.manifest["models"]["int8"]["breakdown"].values() if isinstance(one, dict))
    assert sum(one["recordings"] for one in table.values()) == 20
    # Nothing of it asks for Pillow.
    (tmp_path / "without" / "PIL").mkdir(parents=True)
    (tmp_path / "without" / "PIL" / "__init__.py").write_text("raise ImportError('there is no Pillow')")
    said = run(folder, tmp_path, "verify.py").splitlines()
    assert said[-1].startswith("pass"), said
    assert run(folder, tmp_path, "example_python.py", "golden/1.wav").startswith("predicted: ")
    # Another front end is noticed.
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["preprocessing"]["low_hz"] = 60.0
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "SHA256SUMS").write_text("")
    assert "FAIL golden/0.wav: preprocessed, it differs by" in run(folder, tmp_path, "verify.py")


def run(folder: Path, tmp_path: Path, *command: str) -> str:
    environment = {"PYTHONPATH": str(tmp_path / "without"), "PATH": ""}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return done.stdout

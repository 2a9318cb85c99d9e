"""How `export.quantization` is settled, and that it is settled once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from nas_edge.config import RunConfig, load_config
from nas_edge.errors import ConfigError
from nas_edge.export.representative import representative_set
from nas_edge.networks.graph import Weights, ranges_of
from nas_edge.networks.keras_model import get_weights, keras_model
from nas_edge.runs.result import Quantization
from nas_edge.runs.run import Run
from nas_edge.stages.delivering import Contender, convert
from nas_edge.stages.quantizing import aware_settings, quantize_once
from nas_edge.testing.trainings import bright_or_dark, small_network
from nas_edge.training.context import TrainingContext
from nas_edge.training.methods import train_network
from tests.support.quantizing import ruined_post_training

NETWORK = small_network()
TASK, DATA = bright_or_dark()
TRAINING = ["training.optimizer=adam", "training.learning_rate=0.2", "training.batch_size=16", "training.epochs=6"]


def settings(*more: str) -> RunConfig:
    return load_config("smoke", settings=[*TRAINING, *more])


@pytest.fixture(scope="module")
def trained() -> Weights:
    return train_network(settings().training, TrainingContext(NETWORK, None, TASK, DATA, 0), lambda step: None)


def settle(
    run: Run, config: RunConfig, weights: Weights, tunings: list[int]
) -> tuple[Weights, Quantization, Mapping[str, bytes]]:
    def tune() -> Weights:
        def work() -> Weights:
            tunings.append(1)
            context = TrainingContext(NETWORK, weights, TASK, DATA, 0)
            return train_network(aware_settings(config), context, lambda step: None)

        return run.weights_once("winner/aware.npz", work)

    return quantize_once(run, config, TASK, DATA, NETWORK, weights, "winner", tune)


def test_aware_tunes_once_and_its_file_keeps_the_ranges(trained: Weights, tmp_path: Path) -> None:
    config, tunings = settings("export.quantization=aware"), list[int]()
    with Run.create(tmp_path / "run", config) as run:
        weights, how, made = settle(run, config, trained, tunings)
        again, same, _ = settle(run, config, trained, tunings)
    assert not made
    assert (tunings, how, same) == ([1], Quantization("aware"), how)
    assert ranges_of(again) == ranges_of(weights) != {}
    model = convert(config, TASK, DATA, Contender("winner", "", None, NETWORK), trained, again, how)
    assert model.quantization == how
    assert model.quality["int8"] > 0.9
    with_float_io = settings("export.quantization=aware", "export.precision=int8-float-io")
    other = convert(with_float_io, TASK, DATA, Contender("winner", "", None, NETWORK), trained, again, how)
    assert other.quality["int8-float-io"] == model.quality["int8"]


@pytest.mark.parametrize("budget", [0.5, 0.0])
def test_auto_tunes_only_where_the_budget_is_not_kept(
    trained: Weights, tmp_path: Path, budget: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, tunings = settings("export.quantization=auto", f"export.accuracy_budget={budget}"), list[int]()
    if budget == 0:
        monkeypatch.setattr("nas_edge.stages.quantizing.post_training", ruined_post_training)
    with Run.create(tmp_path / "run", config) as run:
        weights, how, made = settle(run, config, trained, tunings)
        assert (run.folder / "stages" / "quantization-winner.json").exists()
        again, same, none = settle(run, config, trained, tunings)
    assert (same, none) == (how, {})
    assert made.keys() == ({"float32", "int8"} if budget else {"float32"}), "what is delivered as it is"
    with monkeypatch.context() as patch:
        patch.setattr("nas_edge.export.convert.float32_tflite", None)  # nothing is converted again
        patch.setattr("nas_edge.stages.delivering.post_training", None)
        model = convert(config, TASK, DATA, Contender("winner", "", None, NETWORK), trained, weights, how, made)
    assert all(file in model.files[precision] for precision, file in made.items())
    assert how.images == len(DATA.split.validation)
    assert tunings == ([] if budget else [1])
    assert how.method == ("post-training" if budget else "aware")
    assert (again is trained) == (how.method == "post-training")
    assert "on 32 validation examples: float 1" in how.text("accuracy", ".2%")
    assert Quantization.from_json(how.to_json()) == how
    assert (how.aware_quality is None) == bool(budget)


def test_a_method_that_is_aware_needs_no_tuning(tmp_path: Path) -> None:
    config = settings("training.method=quantization-aware", "export.quantization=auto")
    context = TrainingContext(NETWORK, None, TASK, DATA, 0)
    weights = train_network(config.training, context, lambda step: None)
    with Run.create(tmp_path / "run", config) as run:
        assert settle(run, config, weights, []) == (weights, Quantization("aware"), {})


def test_aware_is_refused_where_activations_are_not_int8() -> None:
    with pytest.raises(ConfigError, match="trains for int8 activations"):
        settings("export.quantization=aware", "export.precision=float16")
    with pytest.raises(ConfigError, match="expected one of int8, int8-float-io"):
        settings("export.precision=int4")


def test_the_representative_set_has_as_many_of_every_class_and_follows_from_the_seed() -> None:
    chosen = representative_set(DATA, 20, 3)
    labels = DATA.dataset.labels[chosen.indices]
    assert np.bincount(labels).tolist() == [10, 10]
    assert set(chosen.indices) <= set(DATA.split.train)
    assert chosen.to_json() == {"images": 20, "seed": 3, "per_class": [10, 10]}
    assert np.array_equal(representative_set(DATA, 20, 3).indices, chosen.indices)
    assert not np.array_equal(representative_set(DATA, 20, 4).indices, chosen.indices)
    assert representative_set(DATA, 10**6, 3).to_json()["images"] == len(DATA.split.train)


def test_weights_without_ranges_are_what_they_were(trained: Weights) -> None:
    assert ranges_of(trained) == {}
    assert get_weights(keras_model(NETWORK, trained), NETWORK).keys() == trained.keys()

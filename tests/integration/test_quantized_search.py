"""Searches that deliver weights tuned with int8's roundings: end to end, and stopped while they are tuned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nas_edge import pipeline
from nas_edge.config import RunConfig, load_config
from nas_edge.errors import StoppedError
from nas_edge.export.bundle import verify_bundle
from nas_edge.networks.graph import ranges_of
from nas_edge.runs.result import RunResult
from nas_edge.runs.run import Run
from nas_edge.spaces import SPACES
from tests.support.quantizing import ruined_post_training
from tests.support.reporters import Terminating
from tests.support.spaces import TINY, tiny_space

SETTINGS = (
    "space.name=tiny",
    "search.steps=4",
    "search.samples_per_step=1",
    "search.reward_delay_steps=0",
    "search.delay_fraction=0.5",
    "search.op_warmup_fraction=0",
    "search.filter_warmup_fraction=0",
    "finalists.front=0",
    "training.epochs=6",
    "export.aware_share=0.2",
    "export.accuracy_budget=0",
    "target.limit=none",
    "runs.tensorboard=false",
    # The machines that run tests are shared; what is worth what on them is tested elsewhere.
    "final_measure.max_risk=1",
    "final_measure.max_relative_half_width=5",
    "final_measure.min_clock_ratio=0",
)
KEPT = ("winner/weights.npz", "winner/aware.npz", "stages/quantization-winner.json", "bundle/model_int8.tflite")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """A search by a table of latencies, so that every run has the same."""
    monkeypatch.setitem(SPACES.entries, "tiny", TINY)
    space, file = tiny_space(16, 1, 10), tmp_path / "table.json"
    file.write_text(json.dumps({"schema_version": 1, "input_shape": space.input_shape, "bias_ms": 1.0, "terms": []}))
    return load_config("smoke", flags={"latency": f"table:{file}", "target.latency_ms": 1.0}, settings=SETTINGS)


def unchanged(config: RunConfig) -> RunConfig:
    return config


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["aware", "auto"])
def test_a_search_stopped_while_it_tunes_delivers_what_one_that_was_not_does(
    config: RunConfig, quantization: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(flags={"export.quantization": quantization}, base=config)
    if quantization == "auto":  # what is compared, not what is delivered: so it is tuned
        monkeypatch.setattr("nas_edge.stages.quantizing.post_training", ruined_post_training)
    whole: RunResult = pipeline.search(config, tmp_path / "whole", Terminating("nothing", 0))
    folder = tmp_path / "stopped"
    with pytest.raises(StoppedError):
        pipeline.search(config, folder, Terminating("tuning winner", 3))
    run = Run.open(folder)
    assert run.path("winner/weights.npz").exists()
    assert not run.path("winner/aware.npz").exists()
    reporter = Terminating("nothing", 0)
    result = pipeline.resume(folder, unchanged, reporter)
    assert [stage for stage in reporter.stages if stage.startswith(("training", "tuning"))] == ["tuning winner"]
    for name in KEPT:
        assert run.path(name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert result.quantization == whole.quantization
    assert result.winner.accuracy == whole.winner.accuracy
    tuned, trained = run.read_weights("winner/aware.npz"), run.read_weights("winner/weights.npz")
    assert ranges_of(tuned)
    name = next(name for name, arrays in trained.items() if arrays and arrays[0].ndim == 4)
    assert not np.array_equal(tuned[name][0], trained[name][0])
    bundle = verify_bundle(folder / "bundle")
    told = bundle.manifest["details"]["quantization"]
    assert told["method"] == "aware"
    assert (told["aware_quality"] is None) == (quantization == "aware")

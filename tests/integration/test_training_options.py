"""A whole run with trained finalists, distillation, averaged weights and a warm start: stopped, continued, the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from device_agents.api import Verdict
from nas_edge import pipeline
from nas_edge.config import RunConfig, load_config
from nas_edge.errors import StoppedError
from nas_edge.export.bundle import verify_bundle
from nas_edge.runs.halving import HALVING, read_halving
from nas_edge.runs.run import Run
from nas_edge.runs.warm_start import SUPERNET, read_warm_start
from nas_edge.spaces import SPACES
from nas_edge.spaces.published import MOBILENET_V2_STYLE
from tests.support.recordings import of_tiny_space, record
from tests.support.reporters import Terminating
from tests.support.spaces import TINY

SETTINGS = (
    "space.name=tiny",
    "space.reference=mobilenet-v2",
    "target.latency_ms=0.5",
    "search.steps=8",
    "search.delay_fraction=0.5",
    "search.op_warmup_fraction=0.25",
    "search.filter_warmup_fraction=0.25",
    "training.epochs=2",
    "export.precision=float32",
    "runs.tensorboard=false",
    "device.timing_inputs=0",
)
OPTIONS = (
    *SETTINGS,
    "search.random_baseline=true",
    "export.compare=true",
    "finalists.trained=2",
    "training.method=distillation",
    "training.images=train",
    "training.ema_decay=0.9",
    "training.early_stopping=1",
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A space, and a network to compare with, that are compiled and converted in a second."""
    monkeypatch.setitem(SPACES.entries, "tiny", TINY)
    shallow = replace(MOBILENET_V2_STYLE["mobilenet-v2"], ops=(0, 0, *19 * (6,), 0))
    monkeypatch.setitem(MOBILENET_V2_STYLE, "mobilenet-v2", shallow)


def kept(run: Run) -> dict[str, Any]:
    """What two runs must agree in."""
    names = [f"stages/{name}.json" for name in ("init", "teacher", "stopped_early", "front")]
    names += [*HALVING.values(), "journal.jsonl", "stages/selection.jsonl", "winner/weights.npz", "init/weights.npz"]
    names += [str(path.relative_to(run.folder)) for path in run.path("compared").rglob("*.npz")]
    names += [str(path.relative_to(run.folder)) for path in run.path("teacher").iterdir()]
    rows = json.loads(run.path("result.json").read_text())["rows"]
    accuracies = [(row["name"], row["architecture"], row["accuracy"]) for row in rows]
    return {**{name: run.path(name).read_bytes() for name in names}, "accuracies": accuracies}


@pytest.mark.slow
def test_a_run_with_every_option_is_stopped_and_continued_and_ends_the_same(tmp_path: Path) -> None:
    device = f"device.addresses=replay:{record(tmp_path / 'times.json', of_tiny_space(Verdict.OK))}"

    def config(*settings: str) -> RunConfig:
        return load_config("smoke", settings=[device, *settings])

    pipeline.search(config(*SETTINGS, "target.limit=none"), tmp_path / "donor", Terminating("nothing", 0))
    options = (*OPTIONS, "target.limit=hard", "seed=1", f"init={tmp_path / 'donor'}")
    whole = Terminating("nothing", 0)
    result = pipeline.search(config(*options), tmp_path / "whole", whole)
    run = Run.open(tmp_path / "whole")
    assert [row.name for row in result.rows] == ["winner", "best of random", "mobilenet-v2"]
    assert [len(scores) for scores in read_halving(run).values()] == [2, 2]
    for name, scores in read_halving(run).items():
        best = max(scores, key=lambda score: score.quality or 0.0)
        assert best.architecture == next(row.architecture for row in result.rows if row.name == name)
    start = read_warm_start(run)
    assert start is not None
    assert list(start.layers) == [SUPERNET, "winner", "best of random", "mobilenet-v2"]
    assert [not layers.fresh for layers in start.layers.values()] == [True, True, True, False]
    trainings = [stage for stage in whole.stages if stage.startswith("training")]
    assert trainings == [
        "training teacher",
        *(f"training finalist {number} of 2, {name}" for name in HALVING for number in (1, 2)),
        *(f"training {row.name}" for row in result.rows),
    ]
    verify_bundle(run.path("bundle"))

    folder = tmp_path / "again"
    with pytest.raises(StoppedError):
        pipeline.search(config(*options), folder, Terminating("training teacher", 2))
    for path in (tmp_path / "donor/checkpoints").iterdir():  # the run goes on without it
        path.unlink()
    with pytest.raises(StoppedError):
        pipeline.resume(folder, lambda config: config, Terminating(trainings[3], 1))
    last = Terminating("nothing", 0)
    pipeline.resume(folder, lambda config: config, last)
    assert [stage for stage in last.stages if stage.startswith("training")] == trainings[3:]
    found, expected = kept(Run.open(folder)), kept(run)
    assert {name for name in expected if found.get(name) != expected[name]} == set()

"""Every task of the package goes the whole way: searched, trained, delivered, and its bundle proves itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nas_edge import api
from nas_edge.config import load_config
from nas_edge.export.bundle import verify_bundle
from nas_edge.spaces import SPACES
from nas_edge.tasks import TASKS
from tests.support.spaces import TINY

DRAWN = "data.source=procedural:size=16,classes=4,difficulty=0.1,train=160,test=40"
SETTINGS = {
    "multi-label": (DRAWN,),
    "regression": (DRAWN,),
    "embedding": (),
    "segmentation": (DRAWN, "task.stride=2"),
    "detection": (f"{DRAWN},figures=2", "task.stride=2", "task.width=16"),
    "keyword-spotting": (
        "data.source=procedural:classes=4,difficulty=0.1,train=120,test=40",
        "space.input_size=16",
        "task.sample_rate_hz=4000",
    ),
}
SHORT = (
    "space.name=tiny",
    "search.steps=8",
    "search.samples_per_step=1",
    "search.delay_fraction=0.5",
    "training.epochs=2",
    "finalists.front=0",
    "measure.max_relative_half_width=5",
    "final_measure.max_relative_half_width=5",
    "final_measure.max_risk=1",
    "target.limit=none",
)


def test_every_task_is_tried() -> None:
    assert set(SETTINGS) == set(TASKS.entries) - {"classification", "tabular"}  # which other tests search


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_a_task_is_searched_and_delivered(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SPACES.entries, "tiny", TINY)
    config = load_config("smoke", flags={"task.name": name}, settings=[*SHORT, *SETTINGS[name]])
    result = api.search(tmp_path / "run", config=config)
    metric = TASKS.make(config.task).metric
    for value in result.winner.accuracy.values():
        assert metric.allows(value)
    assert set(result.winner.accuracy_interval) == set(result.winner.accuracy)
    folder = tmp_path / "run" / "bundle"
    bundle = verify_bundle(folder)
    assert metric.name in json.loads((folder / "manifest.json").read_text())["models"]["int8"]
    assert ("accuracy" in bundle.files["MODEL_CARD.md"].decode()) == (metric.name == "accuracy")
    assert f"test {metric.name}" in (tmp_path / "run" / "report" / "report.json").read_text(encoding="utf-8")
    checked = subprocess.run([sys.executable, "verify.py"], cwd=folder, capture_output=True, text=True, check=False)
    assert checked.stdout.splitlines()[-1].startswith("pass"), checked.stdout

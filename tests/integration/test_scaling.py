"""A family scaled from one network, by the command line, as a user does it: trained, measured, exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nas_edge.export.family import verify_family
from nas_edge.runs.run import Run
from nas_edge.runs.targets import TargetGroup
from tests.support.command_line import nas_edge

SETTINGS = (
    "search.steps=4",
    "search.samples_per_step=1",
    "training.epochs=1",
    "runs.tensorboard=false",
    # The machines that run tests are shared, and nothing here is about the delivered file's latency.
    "final_measure.max_risk=1",
    "final_measure.max_relative_half_width=5",
)


@pytest.mark.slow
def test_a_family_is_delivered_under_simulated_targets(tmp_path: Path) -> None:
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    search = ["search", "--preset", "smoke", "--latency", "sim:edgetpu", "--target-ms", "1", "--limit", "none"]
    done = nas_edge(*search, *settings, "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    family = tmp_path / "family"
    scale = ["scale", str(tmp_path / "run"), "--target-ms", "0.8,1.2", "--candidates", "2", "--out", str(family)]
    done = nas_edge(*scale)
    assert done.returncode == 0, done.stderr
    study = Run(family).read_json("stages/scaling.json")
    assert {one["latency_kind"] for one in study["sample"]} == {"simulated"}
    assert "by a scaling law" in done.stdout
    for target_ms, folder in TargetGroup.open(family).runs():
        run = Run.open(folder)
        assert run.read_json("result.json")["latency_estimate"]["kind"] == "predicted"
        assert run.target_ms == target_ms
        assert (folder / "report/index.html").exists()
    again = nas_edge(*scale)
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout
    done = nas_edge("export", str(family), "--out", str(tmp_path / "bundles"))
    assert done.returncode == 0, done.stderr
    bundles = verify_family(tmp_path / "bundles")
    assert list(bundles.bundles) == ["small", "large"]
    for member, told in zip(bundles.index["members"], study["members"], strict=True):
        assert member["predicted_ms"] == told["predicted_ms"]
        assert member["scale"] == {axis: told[axis] for axis in ("depth", "width", "input_size")}
    assert json.loads((family / "targets.json").read_text())["searches"] is False

"""A joint search of accelerators by the command line: alternating, and the same when it was interrupted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nas_edge.joint.accelerator import AcceleratorSpace
from nas_edge.runs.run import Run
from nas_edge.search.trials import Trial
from tests.support.command_line import nas_edge
from tests.support.joint import NetworksSettings, networks_alone
from tests.support.joint_package import install_joint

SEARCH = (
    *("search", "--preset", "smoke", "--space", "joint-networks", "--joint", "accelerator", "--target-ms", "0.004"),
    *("--set", "task.name=tabular", "--set", "search.quality.source=parameters", "--controller", "reinforce"),
    *("--set", "target.objectives=[{resource: relative_area, target: 0.9}, {resource: energy_mj, target: 0.0001}]"),
    *("--steps", "10", "--set", "runs.checkpoint_steps=4"),
)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the module path with a space whose networks need no data."""
    install_joint(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_search_of_accelerators_alternates_and_is_resumed_exactly(site: Path) -> None:
    run = site / "run"
    done = nas_edge(*SEARCH, "--out", str(run))
    assert done.returncode == 0, done.stderr
    assert "simulated by accelerator simulator" in done.stdout
    assert "not calibrated" in done.stdout

    space = AcceleratorSpace(networks_alone(NetworksSettings(input_size=16), 0, 3))
    trials = [Trial.from_json(record) for record in Run.open(run).journal()]
    rounds = [{space.split(trial.architecture)[1] for trial in half} for half in (trials[:10], trials[10:])]
    assert [len(beside) for beside in rounds] == [1, 1]
    assert rounds[0] == {space.first_beside} != rounds[1]
    for trial in trials:
        assert trial.usage is not None
        assert list(trial.usage) == ["latency_ms", "relative_area", "energy_mj"]
    assert trials[-1].usage["relative_area"] <= 0.9 < trials[0].usage["relative_area"]  # type: ignore[index]
    page = (run / "report" / "report.json").read_text(encoding="utf-8")
    assert "accelerator.lanes" in page

    whole = {name: (run / name).read_bytes() for name in ("journal.jsonl", "result.json", "stages/selection.jsonl")}
    assert json.loads(whole["result.json"])["latency_estimate"]["kind"] == "simulated"
    (run / "result.json").unlink()
    newest = sorted((run / "checkpoints").iterdir())[-1]
    shutil.rmtree(newest) if newest.is_dir() else newest.unlink()
    resumed = nas_edge("search", "--resume", str(run))
    assert resumed.returncode == 0, resumed.stderr
    assert {name: (run / name).read_bytes() for name in whole} == whole

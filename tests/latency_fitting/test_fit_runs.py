"""Fitting a model to what searches measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from nas_edge import cli
from nas_edge.errors import ConfigError
from nas_edge.latency.answer import LatencyKind
from nas_edge.latency.model_file import read_model
from nas_edge.latency_fitting.fitting import fit_runs
from nas_edge.progress import Reporter
from nas_edge.runs.run import Run
from nas_edge.search.trials import Trial
from tests.support import synthetic_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return synthetic_run.make_run(tmp_path_factory.mktemp("runs") / "first", 40, samples=20)


def measured(run: Run) -> set[str]:
    trials = map(Trial.from_json, run.journal())
    return {
        str(trial.architecture)
        for trial in trials
        if trial.latency is not None and trial.latency.ok and trial.latency.kind is LatencyKind.MEASURED
    }


def test_a_model_is_fitted_to_what_a_run_measured(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "phone.latency.json"
    done = CliRunner().invoke(cli.nas_edge, ["latency", "fit", "--run", str(run.folder), "--out", str(out)])
    assert done.exit_code == 0, (done.output, done.exception)
    file = read_model(out)
    assert file.provenance.source == "runs"
    assert {network.architecture for network in file.measurements} == measured(run)
    held_out = sum(network.held_out for network in file.measurements)
    assert 0 < held_out < len(file.measurements) / 2


@pytest.mark.parametrize("precision", ["int16x8", "float16"])
def test_the_precision_is_that_of_the_run(tmp_path: Path, precision: str) -> None:
    other = synthetic_run.make_run(tmp_path / "run", 40, samples=20)
    config = json.loads((other.folder / "config.json").read_text())
    config["export"]["precision"] = precision
    (other.folder / "config.json").write_text(json.dumps(config))
    fit_runs([other.folder], tmp_path / "x.latency.json", Reporter())
    assert read_model(tmp_path / "x.latency.json").provenance.precision == precision


def test_what_other_devices_measured_is_not_joined(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic_run, "DEVICE", replace(synthetic_run.DEVICE, model="another phone"))
    other = synthetic_run.make_run(tmp_path / "second", 20, samples=20)
    out = tmp_path / "phone.latency.json"
    with pytest.raises(ConfigError, match="differ in fingerprint, so their latencies cannot be joined"):
        fit_runs([run.folder, other.folder], out, Reporter())
    assert not out.exists()


def test_a_run_without_measurements_is_refused(tmp_path: Path) -> None:
    empty = synthetic_run.make_run(tmp_path / "empty", 0)
    with pytest.raises(ConfigError, match="has measured no networks"):
        fit_runs([empty.folder], tmp_path / "x.latency.json", Reporter())

"""`nas-edge select` elsewhere: by a model that predicts, or by measuring a few of a run's architectures there."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import pytest
from click.testing import CliRunner

from device_agents.api import BenchmarkSpec, Measurement
from nas_edge import cli
from nas_edge.latency.answer import LatencyKind
from nas_edge.latency.device import DeviceSource
from nas_edge.latency_fitting import reselecting
from nas_edge.latency_fitting.fitting import fit_runs
from nas_edge.latency_fitting.reselecting import reselect_by_model, reselect_on_device
from nas_edge.progress import Reporter
from nas_edge.runs.reselect import candidates_of
from nas_edge.runs.run import Run
from tests.support import synthetic_run
from tests.support.agents import FunctionAgent, fake_info
from tests.support.devices import measure_file


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return synthetic_run.make_run(tmp_path_factory.mktemp("runs") / "first", 40, samples=20)


def select(run: Run, *arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(cli.nas_edge, ["select", str(run.folder), *map(str, arguments)])
    return done.exit_code, done.output + str(done.exception or "")


def test_a_model_answers_with_the_best_whose_whole_interval_is_below(run: Run, tmp_path: Path) -> None:
    file = fit_runs([run.folder], tmp_path / "phone.latency.json", Reporter())
    latency = f"model:{tmp_path / 'phone.latency.json'}"
    target_ms = 1.2 * median(candidate.latency_ms for candidate in candidates_of(run).candidates)
    found = reselect_by_model(run.folder, [target_ms, 1e-6], latency, Reporter())
    choice = found.choices[target_ms]
    assert choice is not None
    assert choice.answer.kind is LatencyKind.PREDICTED
    assert (choice.answer.latency_ms or 0) < choice.upper_ms <= target_ms
    assert found.choices[1e-6] is None
    assert found.fastest is not None
    code, out = select(run, "--target-ms", f"{target_ms:.4f},0.000001", "--latency", latency)
    assert code == 0, out
    assert "predicted" in out
    assert str(choice.candidate.architecture) in out
    assert "none of the run is that fast there" in out
    assert str(file.provenance.device) in out


def test_another_device_measures_some_and_answers_what_it_measured(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def measure(model: bytes, spec: BenchmarkSpec) -> Measurement:
        asked.append(model)
        return measure_file(model, spec)

    def opened(*_: object, **__: object) -> DeviceSource:
        return DeviceSource([FunctionAgent(measure, fake_info(model="another phone"))], "int8", BenchmarkSpec())

    monkeypatch.setattr(reselecting, "open_devices", opened)
    slow = reselect_on_device(run.folder, [1e6], "fake:", Reporter())
    best = slow.choices[1e6]
    assert best is not None
    known = candidates_of(run)
    assert best.candidate.quality == max(one.quality for one in known.finalists or known.candidates)
    assert best.answer.kind is LatencyKind.MEASURED
    assert slow.where == "another phone"
    assert slow.fastest is not None
    target_ms = 1.5 * (slow.fastest.answer.best_ms or 0)
    asked.clear()
    found = reselect_on_device(run.folder, [target_ms], "fake:", Reporter()).choices[target_ms]
    assert found is not None
    assert found.upper_ms <= target_ms
    code, out = select(run, "--target-ms", "1000000,0.000001", "--device", "fake:")
    assert code == 0, out
    assert "measured" in out
    assert "--device fake:" in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--latency", "model:x", "--device", "host:", "--target-ms", "4"), "exclude each other"),
        (("--latency", "model:x"), "--target-ms is missing"),
        (("--latency", "sim:edgetpu", "--target-ms", "4"), "expected model:FILE, received sim:edgetpu"),
    ],
)
def test_what_cannot_be_answered_is_said(run: Run, arguments: tuple[str, ...], expected: str) -> None:
    code, out = select(run, *arguments)
    assert code != 0
    assert expected in out

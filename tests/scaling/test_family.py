"""A family of one network, by a simulated Edge TPU: found, stopped, continued, told. Trainings are stand-ins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from nas_edge import api, pipeline
from nas_edge.config import RunConfig, load_config
from nas_edge.errors import ConfigError, InfeasibleError, RunError, SpaceError, StoppedError
from nas_edge.hardware.edgetpu_timing import EDGETPU_TIMING
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.latency.retry import RetryingSource
from nas_edge.latency.roofline import estimate
from nas_edge.latency.source import Candidate, LatencySource
from nas_edge.networks.analysis import analyze
from nas_edge.networks.graph import NetworkSpec
from nas_edge.networks.work import network_work
from nas_edge.report import group_report, to_text
from nas_edge.runs.result import LatencyEstimate, Outcome, ResultRow, RunResult
from nas_edge.runs.run import Run
from nas_edge.runs.targets import TargetGroup
from nas_edge.scaling import family, study
from nas_edge.scaling.grid import Grid
from nas_edge.search.trials import Trial
from nas_edge.spaces.decisions import SearchSpace
from nas_edge.stages.contender import Contender
from nas_edge.stages.context import Bench, RunContext
from tests.scaling.support import SPACE, architecture
from tests.support.finished_runs import timed
from tests.support.reporters import Terminating

TARGETS_MS = (1.0, 1.6, 2.2)


class Roofline(LatencySource):
    """The simulator of an Edge TPU, without a look at whether that runs each operator."""

    name = "Edge TPU"

    def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
        future: Future[LatencyAnswer] = Future()
        simulated = estimate(network_work(candidate.network), EDGETPU_TIMING, "usb")
        future.set_result(LatencyAnswer.estimated(LatencyKind.SIMULATED, simulated.latency_ms))
        return future


@cache
def grid_by(config: str, outputs: int, channels: int) -> Grid:
    return Grid(RunConfig.model_validate_json(config), outputs, channels)


@contextmanager
def simulated(config: RunConfig, task: object, data: object, space: SearchSpace) -> Iterator[Bench]:
    """A bench without a device."""
    yield Bench(None, Roofline(), "int8")


def delivered(
    context: RunContext,
    target_ms: float,
    winner: Trial,
    contenders: Sequence[Contender],
    predicted: LatencyEstimate | None = None,
) -> RunResult:
    """In place of training, converting and measuring: the network takes what the simulator says."""
    answer = context.bench.latency_source.submit(Candidate(context.space.build(winner.architecture))).result()
    assert answer.latency_ms is not None
    row = ResultRow("winner", str(winner.architecture), winner.quality, {}, {"int8": timed(answer.latency_ms)})
    return RunResult(target_ms, "int8", False, (row,), "a device", predicted)


def quality(context: RunContext, network: NetworkSpec, weights: object) -> float:
    """A stand-in that grows with the multiply-adds, on data of the network's input size."""
    assert context.required_data.preprocessing.input_size == network.input_shape[0]
    return 1 - 1 / (1 + analyze(network).macs / 1e8)


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family, "Grid", lambda config, *shape: grid_by(config.model_dump_json(), *shape))
    monkeypatch.setattr(family, "open_bench", simulated)
    monkeypatch.setattr(family, "deliver", delivered)
    monkeypatch.setattr(pipeline, "write_report", lambda run, reporter: None)  # of each network, which takes longest
    monkeypatch.setattr(family, "start_tensorflow", lambda deterministic: None)
    monkeypatch.setattr(study, "train", lambda *given: {})
    monkeypatch.setattr(study, "validation_quality", quality)


def found_run(folder: Path, **flags: Any) -> Path:
    """A finished run with a network."""
    chosen = {
        "space": SPACE,
        "target.latency_ms": 1.0,
        "target.limit": "none",
    }
    with Run.create(folder, load_config("smoke", flags=chosen | flags)) as run:
        row = ResultRow("winner", architecture(), 0.9, {}, {})
        run.write_json("result.json", RunResult(1.0, "int8", False, (row,), "a device").to_json())
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return found_run(tmp_path_factory.mktemp("found") / "run")


def test_a_family_is_found_stopped_and_continued(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, results = api.scale(run, TARGETS_MS, tmp_path / "whole", reporter=Terminating("nothing", 0))
    told = Run(folder).read_json("stages/scaling.json")
    assert told["law"]["error"] < 0.1
    assert len(told["sample"]) >= 10
    assert 5 <= len(told["candidates"]) <= 8
    macs = []
    for target_ms, member, each in zip(TARGETS_MS, told["members"], results, strict=True):
        assert member["latency_kind"] == "simulated"
        assert 0.95 * target_ms <= member["latency_ms"] <= target_ms
        assert member["predicted_ms"] == pytest.approx(member["latency_ms"], rel=0.1)
        rivals = [one for one in told["candidates"] if one["target_ms"] == target_ms]
        assert member["quality"] == max(one["quality"] for one in rivals)
        macs.append(member["macs"])
        assert each.result is not None
        assert each.result.outcome is not Outcome.MISSED
        assert each.result.latency_estimate is not None
        assert each.result.latency_estimate.kind is LatencyKind.PREDICTED
        assert each.result.latency_ms == pytest.approx(member["latency_ms"])
        assert Run.open(each.folder).config.space.input_size == member["input_size"]  # type: ignore[attr-defined]
    assert macs == sorted(macs)
    page = to_text(group_report(TargetGroup.open(folder)), 200)
    assert "Predicted against measured" in page
    assert "the device gets more done in the same time" in page
    assert (folder / "index.html").exists()

    calls = 0

    def interrupted(*given: object) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return {}

    monkeypatch.setattr(study, "train", interrupted)
    again = tmp_path / "again"
    with pytest.raises(StoppedError, match=r"continue with: nas-edge scale .* --target-ms 1,1\.6,2\.2 --out"):
        api.scale(run, TARGETS_MS, again, reporter=Terminating("nothing", 0))
    asked: list[object] = []
    submit = RetryingSource.submit

    def counted(source: RetryingSource, candidate: Candidate) -> Any:
        asked.append(candidate)
        return submit(source, candidate)

    monkeypatch.setattr(RetryingSource, "submit", counted)
    api.scale(run, TARGETS_MS, again, reporter=Terminating("nothing", 0))
    assert len(asked) == len(TARGETS_MS), "only those that were chosen are measured another time"
    assert Run(again).read_json("stages/scaling.json") == told
    with pytest.raises(RunError, match="continue it with nas-edge scale"):
        api.resume_targets(again)
    (again / "1ms/result.json").unlink()
    with pytest.raises(RunError, match="nas-edge deliver or scale"):
        api.resume(again / "1ms")
    with pytest.raises(RunError, match="holds networks for other targets"):
        api.scale(run, (1.0,), again)
    with pytest.raises(ConfigError, match=r"training\.epochs cannot change"):
        api.scale(run, TARGETS_MS, again, settings={"training.epochs": 3})


def test_a_target_that_nothing_meets_keeps_no_other_from_being_met(run: Path, tmp_path: Path) -> None:
    _, (first, second) = api.scale(run, (0.01, 1.0), tmp_path / "out", reporter=Terminating("nothing", 0))
    assert isinstance(first.problem, InfeasibleError)
    assert "no scaled network was found for 0.01000 ms" in str(first.problem)
    assert second.result is not None


@pytest.mark.parametrize(
    ("flags", "settings", "error", "expected"),
    [
        ({}, {"search.steps": 3}, ConfigError, "cannot differ from the search"),
        ({"export.weights": "shared"}, {"training.epochs": 0}, ConfigError, "no shared weights"),
        ({}, {"training.method": "distillation"}, ConfigError, "teacher has a single input size"),
        ({"joint.kind": "deployment"}, {}, ConfigError, "networks of a joint search .* cannot be scaled"),
    ],
)
def test_what_cannot_be_scaled_is_refused(
    flags: dict[str, Any], settings: dict[str, Any], error: type[Exception], expected: str, tmp_path: Path
) -> None:
    found = found_run(tmp_path / "run", **flags)
    with pytest.raises(error, match=expected):
        api.scale(found, (1.0,), tmp_path / "out", settings=settings)
    assert not (tmp_path / "out").exists()


def test_a_search_that_goes_on_is_refused(tmp_path: Path) -> None:
    found = found_run(tmp_path / "run")
    (found / "result.json").unlink()
    with pytest.raises(RunError, match="to finish it: nas-edge search --resume"):
        api.scale(found, (1.0,), tmp_path / "out")


def test_a_network_without_blocks_is_refused(run: Path, tmp_path: Path) -> None:
    damaged = found_run(tmp_path / "run")
    content = Run.open(damaged).read_json("result.json")
    content["rows"][0]["architecture"] = "0:1"
    Run.open(damaged).write_json("result.json", content)
    with pytest.raises(SpaceError, match="has 73 decisions"):
        api.scale(damaged, (1.0,), tmp_path / "out")

"""A search on devices of two models, each with its own target. The devices are stand-ins; all else is real."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_agents.errors import DeviceError
from device_agents.scheme import Scheme
from device_agents.schemes import SCHEMES
from nas_edge import pipeline
from nas_edge.cli import main
from nas_edge.config import RunConfig, load_config
from nas_edge.errors import ConfigError, RunError, StoppedError
from nas_edge.export.bundle import verify_bundle
from nas_edge.networks.tflite_model import tflite_model
from nas_edge.report import read_run, result_text, run_report
from nas_edge.report.search_sections import trials_table
from nas_edge.runs.columns import read_trials
from nas_edge.runs.journal import read_journal
from nas_edge.runs.result import DeviceResult, Outcome, ResultRow, RunResult, read_result
from nas_edge.runs.run import Run
from nas_edge.search.trials import Trial
from nas_edge.spaces import SPACES
from nas_edge.tasks.classification import ACCURACY
from tests.support.agents import FunctionAgent, fake_info, steady
from tests.support.reporters import Terminating
from tests.support.sources import visited
from tests.support.spaces import TINY, tiny_space

SETTINGS = (
    "space.name=tiny",
    "search.steps=6",
    "search.samples_per_step=2",
    "search.reward_delay_steps=0",
    "search.delay_fraction=0.5",
    "search.op_warmup_fraction=0",
    "search.filter_warmup_fraction=0",
    "training.epochs=1",
    "export.precision=float32",
    "runs.tensorboard=false",
    "measure.max_risk=1",
    "final_measure.max_risk=1",
)


class Phone(FunctionAgent):
    """A stand-in for a device of one model, whose latency follows from the size of the file."""

    def run(self, model: bytes, inputs: Sequence[Any]) -> list[Any]:
        raise DeviceError("this stand-in runs nothing")


@dataclass
class Bench:
    """Two models, of which one gets slower with the size of a file, and the other, oddly, faster.

    Attributes:
        measured: sizes by address.
        quantiles: of the sizes of float32 files of the space.
    """

    quantiles: tuple[int, int]
    measured: dict[str, list[int]] = field(default_factory=dict)

    def latency_ms(self, address: str, size: int) -> float:
        return size / 1e3 if address != "phone:c" else 1e6 / size

    def open(self, rest: str) -> Phone:
        address = f"phone:{rest}"

        def measure(model: bytes, spec: object) -> Any:
            self.measured.setdefault(address, []).append(len(model))
            return steady(self.latency_ms(address, len(model)))

        model = "slower with size" if rest in "ab" else "faster with size"
        return Phone(measure, fake_info(address, model))

    @property
    def targets(self) -> dict[str, str]:
        low, high = self.quantiles
        first_ms, second_ms = self.latency_ms("phone:a", high), self.latency_ms("phone:c", low)
        return {"phone:a": f"{first_ms!r}", "phone:b": f"{first_ms!r}", "phone:c": f"{second_ms!r}"}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setitem(SPACES.entries, "tiny", TINY)
    space, rng = tiny_space(16, 1, 10), np.random.default_rng(0)
    sizes = [len(tflite_model(space.build(space.sample(rng)).needed_network(), "float32")) for _ in range(40)]
    low, high = np.quantile(sizes, [0.3, 0.8])
    made = Bench((int(low), int(high)))
    monkeypatch.setitem(SCHEMES, "phone", Scheme("phone", "phone:X", "a stand-in", made.open))
    return made


def configure(bench: Bench, **flags: Any) -> RunConfig:
    targets = [f"{address}={target}" for address, target in bench.targets.items()]
    devices = {"device.addresses": list(bench.targets), "device.targets": targets}
    return load_config("smoke", flags={**devices, **flags}, settings=SETTINGS)


@pytest.mark.slow
def test_a_search_meets_the_target_of_each_model(bench: Bench, tmp_path: Path) -> None:
    folder, config = tmp_path / "run", configure(bench)
    with pytest.raises(StoppedError):
        pipeline.search(config, folder, Terminating("measuring", 1))
    run = Run.open(folder)
    asked = {address: len(sizes) for address, sizes in bench.measured.items()}
    reporter = Terminating("nothing", 0)
    result = pipeline.resume(folder, lambda config: config, reporter)
    assert reporter.stages.count("measuring") == 2
    assert set(asked) == {"phone:a", "phone:b", "phone:c"}, "devices of one model share the work"
    (first_model, first_ms), (second_model, second_ms) = run.device_targets_ms
    assert (first_model, second_model) == ("slower with size", "faster with size")
    for trial in map(Trial.from_json, run.journal()):
        assert trial.latency is not None
        on_first, on_second = (part.latency_ms for part in trial.latency.parts)
        assert on_first is not None
        assert on_second is not None
        furthest = max(on_first / first_ms, on_second / second_ms)
        assert trial.latency_ms == pytest.approx(first_ms * furthest)
        assert trial.quality is not None
        assert trial.reward == pytest.approx(trial.quality - 0.1 * abs(furthest - 1))
        assert on_first * on_second == pytest.approx(1e3), "one and the same file"
    columns = run.trials()
    assert columns.parts_ms == read_trials(run.path("journal.jsonl"), samples=True).parts_ms
    assert all(len(parts) == 2 for parts in columns.parts_ms)

    (further,) = result.further
    there = further.latency["winner"]["float32"]
    here = result.measurement
    assert here is not None
    assert (result.target_ms, further.target_ms) == (first_ms, second_ms)
    assert (here.best_ms or 0) * (there.best_ms or 0) == pytest.approx(1e3), "the delivered file, on each"
    chosen = [Trial.from_json(each) for each in read_journal(run.path("stages/selection.jsonl")).records]
    (winner,) = (trial for trial in chosen if str(trial.architecture) == result.winner.architecture)
    assert winner.latency is not None
    on_first, on_second = (part.latency_ms or 9e9 for part in winner.latency.parts)
    assert on_first <= first_ms, "on each"
    assert on_second <= second_ms
    assert any((t.latency.parts[0].latency_ms or 0) > first_ms for t in chosen if t.latency), "which not all meet"
    assert len(read_journal(run.path("stages/final-2.jsonl")).records) == 1
    assert result == read_result(run)
    details = verify_bundle(folder / "bundle").manifest["details"]["further_devices"]
    assert [(each["device"], each["target_ms"]) for each in details] == [("faster with size", second_ms)]
    assert "this stand-in runs nothing" in details[0]["on_device_check"]["float32"]["problem"]
    found = read_run(folder)
    table = {column.key: column.values for column in trials_table(found).columns}
    assert list(zip(table["device_1_ms"], table["device_2_ms"], strict=True)) == columns.parts_ms
    (section,) = (section for section in run_report(found).sections if section.key == "result")
    rows = {row[1]: row for row in section.tables[1].rows()}
    assert rows["faster with size"][3:5] == (second_ms, there.best_ms)

    again = pipeline.export(folder, tmp_path / "again", None, Terminating("nothing", 0))
    assert [each.device for each in again.further] == ["faster with size"]
    run.path("result.json").unlink()
    environment = run.read_json("environment.json")
    environment["sessions"][0]["measured_with"]["device of device 2"] = "another"
    run.write_json("environment.json", environment)
    with pytest.raises(RunError, match="was measured with device of device 2 another"):
        pipeline.resume(folder, lambda config: config, reporter)


def test_one_missed_target_misses_the_limit(bench: Bench) -> None:
    row = ResultRow("winner", "0:0", 0.5, {}, {"int8": visited(4.0)})
    for second_ms, expected in ((10.0, Outcome.MET), (30.0, Outcome.MISSED), (20.0, Outcome.UNKNOWN)):
        there = DeviceResult("a board", 20.0, {"winner": {"int8": visited(second_ms)}})
        result = RunResult(5.0, "int8", True, (row,), "a phone", further=(there,))
        assert (result.outcome, result.first_outcome) == (expected, Outcome.MET)
        assert result.meets_limit == (expected is Outcome.MET)
        assert RunResult.from_json(json.loads(json.dumps(result.to_json()))) == result
        assert "on a board" in result_text.table(result, Path("run"), ACCURACY)
        if expected is not Outcome.MET:
            assert "20.00 ms on a board" in result_text.limit_line(result)
            assert "a phone" not in result_text.limit_line(result)


@pytest.mark.parametrize(
    ("targets", "more", "expected"),
    [
        (["phone:a=5"], {}, "there is no target for phone:c; add --device-target phone:c=MS"),
        (["phone:a=5", "phone:c=5", "phone:x=5"], {}, "a target is given for phone:x, which is none of the devices"),
        (["phone:a=5", "phone:a=6", "phone:c=5"], {}, "two targets are given for phone:a; give one"),
        (["phone:a", "phone:c=5"], {}, "expected ADDRESS=MS, for example ssh://pi=5, received 'phone:a'"),
        (["phone:a=0", "phone:c=5"], {}, "expected ADDRESS=MS"),
        (["phone:a=5", "phone:c=5"], {"target.latency_ms": 5}, "exclude each other"),
        (["phone:a=5", "phone:c=5"], {"latency": "table:x.json"}, "device.targets are met by measuring"),
    ],
)
def test_targets_that_do_not_fit_the_devices_are_refused_in_one_line(
    bench: Bench, targets: list[str], more: dict[str, Any], expected: str
) -> None:
    flags = {"device.addresses": ["phone:a", "phone:c"], "device.targets": targets}
    with pytest.raises(ConfigError) as error:
        load_config("smoke", flags={**flags, **more}, settings=SETTINGS)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_devices_of_one_model_have_one_target(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--device", "phone:a", "--device", "phone:b", "--device-target", "phone:a=5"]
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    out = ["--out", str(tmp_path / "run")]
    command = ["nas-edge", "search", "--preset", "smoke", *words, "--device-target", "phone:b=6", *settings, *out]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "phone:a and phone:b are devices of one model, with targets of 5 and 6 ms" in capsys.readouterr().err

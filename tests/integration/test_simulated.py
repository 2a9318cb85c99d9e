"""A search that goes by a simulated Edge TPU, by both methods: every line says so, and it can be resumed."""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

import pytest

from nas_edge import cli
from nas_edge.hardware.edgetpu_timing import EDGETPU_TIMING
from nas_edge.latency.answer import LatencyKind
from nas_edge.latency.roofline import estimate
from nas_edge.networks.work import network_work
from nas_edge.runs.run import Run
from nas_edge.search.trials import Trial
from nas_edge.spaces import SPACES
from tests.support.spaces import TINY, tiny_space

SHORT = (
    "training.epochs=1",
    # The machines that run tests are shared, and nothing here is about the delivered file's latency.
    "final_measure.max_risk=1",
    "final_measure.max_relative_half_width=5",
)
METHODS = {
    "one-shot": ("search.steps=6", "search.samples_per_step=2", "search.delay_fraction=0.5"),
    "multi-trial": ("search.steps=4", "search.quality.weights.epochs=1"),
}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_search_goes_by_the_simulated_edge_tpu(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SPACES.entries, "tiny", TINY)
    space = tiny_space(16, 1, 10)

    def nas_edge(*arguments: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["nas-edge", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        assert end.value.code == 0, captured.err
        return captured.out, captured.err

    settings = [part for setting in (*SHORT, *METHODS[method]) for part in ("--set", setting)]
    search = ["search", "--preset", "smoke", "--space", "tiny", "--method", method, *settings]
    search += ["--latency", "sim:edgetpu", "--target-ms", "0.3", "--limit", "none"]
    out, err = nas_edge(*search, "--out", str(tmp_path / "run"))
    for line in err.splitlines():
        if re.search(r"^(selection|selected)", line) and " ms" in line:
            assert " ms simulated" in line, line
    assert "0.3000 ms simulated  reward" in err
    assert "latencies simulated by Edge TPU simulator at USB 3 (constants " in out
    run = Run.open(tmp_path / "run")
    trials = [Trial.from_json(record) for record in run.journal()]
    assert trials
    for trial in trials:
        assert trial.latency is not None
        assert trial.latency.kind is LatencyKind.SIMULATED
        works = network_work(space.decode(trial.architecture))
        assert trial.latency_ms == estimate(works, EDGETPU_TIMING, "usb").latency_ms
    with (run.path("report") / "trials.csv").open(encoding="utf-8") as file:
        assert {row["latency_kind"] for row in csv.DictReader(file)} == {"simulated"}
    before = run.read_json("result.json")["latency_estimate"]
    assert before["kind"] == "simulated"
    run.path("result.json").unlink()  # as if it had been stopped just before its end
    nas_edge("search", "--resume", str(run.folder))
    assert run.read_json("result.json")["latency_estimate"] == before

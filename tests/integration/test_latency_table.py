"""A search that goes by a table, through the command line: what is delivered is measured all the same."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from device_agents.host import host_info
from nas_edge import cli
from nas_edge.latency.table import LinearTable, Term
from nas_edge.runs.run import Run
from nas_edge.search.trials import Trial
from nas_edge.spaces import SPACES
from tests.support.spaces import TINY, tiny_space

SETTINGS = (
    "search.steps=8",
    "search.samples_per_step=2",
    "search.delay_fraction=0.5",
    "search.op_warmup_fraction=0",
    "search.filter_warmup_fraction=0",
    "training.epochs=1",
    "export.precision=float32",
    # The machines that run tests are shared, and a measurement that is flagged leaves the limit open.
    "final_measure.max_risk=1",
    "final_measure.max_relative_half_width=5",
    "final_measure.min_clock_ratio=0",
)
# The machines that run tests are shared: the delivered file's latency may be flagged, and then nobody knows.
ENDED = (0, 4)


def test_a_search_goes_by_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SPACES.entries, "tiny", TINY)
    space = tiny_space(16, 1, 10)
    # Milliseconds that no network of this size takes here, so that they cannot be taken for measured ones.
    terms = [Term({d.path: choice}, 100.0 * i) for d in space.decisions for i, choice in enumerate(d.choices)]
    file = tmp_path / "table.json"
    linear = {"schema_version": 1, "input_shape": space.input_shape, "bias_ms": 1000.0}
    file.write_text(json.dumps({**linear, "terms": [{"when": term.when, "ms": term.ms} for term in terms]}))

    def nas_edge(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nas-edge", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, captured.out, captured.err

    folder = tmp_path / "run"
    options = [part for setting in SETTINGS for part in ("--set", setting)]
    search = ["search", "--preset", "smoke", "--space", "tiny", *options, "--latency", f"table:{file}"]
    code, out, err = nas_edge(*search, "--target-ms", "1100", "--out", str(folder))
    assert code in ENDED, err
    assert "target 1100 ms (float32), latencies from table table.json" in err
    assert "within 1100 ms" in out
    assert "the search went by latencies looked up in table table.json (sha256 " in out
    run, table = Run.open(folder), LinearTable(space, terms, 1000.0)
    trials = [Trial.from_json(record) for record in run.journal()]
    assert len(trials) == 8
    for trial in trials:
        assert trial.latency_ms == table.latency_ms(trial.architecture)
    result = run.read_json("result.json")
    winner = space.parse(result["rows"][0]["architecture"])
    assert result["latency_estimate"]["kind"] == "looked_up"
    assert result["latency_estimate"]["latency_ms"] == table.latency_ms(winner) <= 1100.0
    assert result["latency_ms"] < 100.0, "measured, not looked up"

    run.path("result.json").unlink()  # as if it had been stopped just before its end
    good = file.read_text()
    file.write_text(json.dumps({**linear, "terms": []}))
    code, _, err = nas_edge("search", "--resume", str(folder))
    assert code == 1
    assert "their latencies cannot be compared" in err
    file.write_text(good)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("device_agents.host.host_info", lambda: replace(host_info(), model="another machine"))
        code, _, err = nas_edge("search", "--resume", str(folder))
    assert code == 1, "its target and what it delivers are measured, though its candidates are not"
    assert "another machine): their latencies cannot be compared" in err
    code, out, err = nas_edge("search", "--resume", str(folder))
    assert code in ENDED, err
    assert run.read_json("result.json")["latency_estimate"] == result["latency_estimate"]

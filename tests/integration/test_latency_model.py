"""A search that goes by a model of the device: candidates are predicted, and what it ends with is measured."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path

import pytest

from device_agents.host import host_info
from nas_edge import cli
from nas_edge.latency.answer import LatencyKind
from nas_edge.latency.model_file import ModelFile, Provenance, SpaceRecord
from nas_edge.latency.models.decisions import DecisionModel
from nas_edge.latency.table import Term
from nas_edge.runs.run import SELECTION, Run
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
    "export.compare=false",
    # The machines that run tests are shared, and a latency that is flagged would leave the choice open.
    *(f"{stage}.{what}" for stage in ("measure", "final_measure") for what in ("max_risk=1", "min_clock_ratio=0")),
    *(f"{stage}.max_relative_half_width=5" for stage in ("measure", "final_measure")),
)


def test_candidates_are_predicted_and_finalists_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SPACES.entries, "tiny", TINY)
    space, info = tiny_space(16, 1, 10), host_info()
    # Milliseconds that no network of this size takes here, so that they cannot be taken for measured ones.
    terms = tuple(Term({d.path: choice}, 100.0 * i) for d in space.decisions for i, choice in enumerate(d.choices))
    model = DecisionModel(bias_ms=1000.0, terms=terms, error=0.01)
    provenance = Provenance(source="fit", device=info.model, fingerprint=info.fingerprint, space=SpaceRecord.of(space))
    path = tmp_path / "host.latency.json"
    path.write_text(ModelFile(provenance=provenance, model=model, half_width=2.0).to_text())

    def search(file: Path, folder: str) -> tuple[int, str]:
        options = [part for setting in SETTINGS for part in ("--set", setting)]
        fixed = ["search", "--preset", "smoke", "--space", "tiny", "--target-ms", "1100", "--limit", "none"]
        arguments = [*fixed, *options, "--latency", f"model:{file}", "--out", str(tmp_path / folder)]
        monkeypatch.setattr(sys, "argv", ["nas-edge", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert isinstance(end.value.code, int)
        return end.value.code, capsys.readouterr().err

    other = tmp_path / "other.latency.json"
    other.write_text(path.read_text().replace(info.fingerprint, "0" * 16).replace(json.dumps(info.model), '"phone"'))
    code, err = search(other, "refused")
    assert code == 2
    assert "is of another device" in err
    assert "received device phone" in err
    assert not (tmp_path / "refused").exists()

    code, err = search(path, "run")
    assert code == 0, err
    run = Run.open(tmp_path / "run")
    trials = [Trial.from_json(record) for record in run.journal()]
    assert len(trials) == 8
    for trial in trials:
        assert trial.latency is not None
        assert trial.latency.kind is LatencyKind.PREDICTED
        assert trial.latency.interval_ms is not None
        assert (trial.latency_ms or 0) >= 1000.0
    with closing(run.open_journal(print, SELECTION)) as selection:
        selected = [Trial.from_json(record) for record in selection.found]
    assert selected
    assert {trial.latency and trial.latency.kind for trial in selected} == {LatencyKind.MEASURED}
    assert all((trial.latency.best_ms or 0) < 100.0 for trial in selected if trial.latency is not None)
    assert run.read_json("result.json")["latency_estimate"] is None
    monkeypatch.setattr(sys, "argv", ["nas-edge", "report", str(tmp_path / "run"), "--text"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "predicted by model host.latency.json" in " ".join(capsys.readouterr().out.split())

"""Searches for several targets: what they share changes nothing of what each of them finds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nas_edge import api, pipeline
from nas_edge.cli import main
from nas_edge.config import RunConfig, load_config
from nas_edge.errors import ConfigError, InfeasibleError, RunError, StoppedError
from nas_edge.export.family import verify_family
from nas_edge.runs.listing import list_runs
from nas_edge.runs.run import Run
from nas_edge.runs.targets import TargetGroup
from nas_edge.spaces import SPACES
from tests.support.reporters import Terminating
from tests.support.spaces import TINY, tiny_space

SETTINGS = (
    "space.name=tiny",
    "search.steps=8",
    "search.samples_per_step=2",
    "search.reward_delay_steps=1",
    "search.delay_fraction=0.5",
    "search.op_warmup_fraction=0.25",
    "search.filter_warmup_fraction=0.25",
    "training.epochs=1",
    "export.precision=float32",
    "runs.tensorboard=false",
    # The machines that run tests are shared; what is worth what on them is tested elsewhere.
    "final_measure.max_risk=1",
    "final_measure.max_relative_half_width=5",
    "final_measure.min_clock_ratio=0",
)
KEPT = ("journal.jsonl", "stages/front.json", "stages/selection.jsonl", "winner/weights.npz")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """A search by a table of its own, so that every run has the same latencies."""
    monkeypatch.setitem(SPACES.entries, "tiny", TINY)
    space, file = tiny_space(16, 1, 10), tmp_path / "table.json"
    terms = [{"when": {d.path: c}, "ms": 100.0 * i} for d in space.decisions for i, c in enumerate(d.choices)]
    head = {"schema_version": 1, "input_shape": space.input_shape, "bias_ms": 1000.0}
    file.write_text(json.dumps({**head, "terms": terms}))
    flags = {"latency": f"table:{file}", "target.latency_ms": 1.0}
    return load_config("smoke", flags=flags, settings=SETTINGS)


def for_target(config: RunConfig, target_ms: float) -> RunConfig:
    return load_config(flags={"target.latency_ms": target_ms}, base=config)


@pytest.mark.slow
def test_each_target_gets_what_a_search_for_it_alone_finds(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    group = tmp_path / "group"
    targets_ms = (1300.0, 1.0, 1050.0)
    with pytest.raises(StoppedError, match=f"step 6 of 8; continue with: nas-edge search --resume {group}$"):
        api.search_targets(group, targets_ms, config=config, reporter=Terminating("search", 5))
    assert TargetGroup.open(group).targets_ms == (1.0, 1050.0, 1300.0)
    assert [path.name for path in TargetGroup.open(group).started()] == ["1ms"]
    fewer = {"search.samples_per_step": 1}
    with pytest.raises(ConfigError, match=r"search\.samples_per_step cannot change"):
        api.resume_targets(group, change=lambda config: load_config(flags=fewer, base=config))
    reporter = Terminating("nothing", 0)
    first, *others = api.resume_targets(group, reporter=reporter)
    assert isinstance(first.problem, InfeasibleError), "which keeps no other target from being searched for"
    shared = [line for line in reporter.said if line.startswith("the first 4 steps are those of")]
    assert len(shared) == 2
    last = others[-1]  # it has all that is shared
    pipeline.search(for_target(config, last.target_ms), tmp_path / "alone", Terminating("nothing", 0))
    for name in KEPT:
        assert (last.folder / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name
    assert not (last.folder / "measurements.sqlite").exists(), "latencies of all are in one file"
    winners = [each.result.winner.architecture for each in others if each.result is not None]
    assert winners[0] != winners[1]

    reporter = Terminating("nothing", 0)
    assert api.resume_targets(group, reporter=reporter)[1:] == others
    assert "training winner" not in reporter.stages, "what is finished is left as it is"
    named = {summary.name: summary.state for summary in list_runs(tmp_path)}
    assert {name: named[f"group/{name}"] for name in ("1ms", "1050ms", "1300ms")} == {
        "1ms": "stopped",
        "1050ms": "finished",
        "1300ms": "finished",
    }
    assert "1300ms" in (group / "index.html").read_text()
    with pytest.raises(RunError, match="holds a run for each of several targets"):
        Run.open(group)
    family = api.export_family(group, tmp_path / "family", reporter=Terminating("nothing", 0))
    assert {name: result.winner.architecture for name, result in family.items()} == dict(
        zip(("medium", "large"), winners, strict=True)
    )
    kept = verify_family(tmp_path / "family")
    assert [bundle.manifest["architecture"] for bundle in kept.bundles.values()] == winners
    assert kept.index["targets_without_network_ms"] == [1.0]
    monkeypatch.setattr("sys.argv", ["nas-edge", "report", str(group), "--text"])
    with pytest.raises(SystemExit):
        main()
    assert "1050ms" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--target-ms", "5,x"], "for example 4 or 4,8,16; received '5,x'"),
        (["--target-ms", "5,-1"], "for example 4 or 4,8,16"),
        (["--target-ms", "5,5.0"], "a target is named twice; received 5,5"),
        (["--target-ms", "5,6", "--dry-run"], "--dry-run takes one target"),
        (["--target-ms", "5,6", "--resume", "x"], "leave out --target-ms of several"),
    ],
)
def test_misuse_gets_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    expected: str,
) -> None:
    out = [] if {"--dry-run", "--resume"} & set(arguments) else ["--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["nas-edge", "search", "--preset", "smoke", *arguments, *out])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

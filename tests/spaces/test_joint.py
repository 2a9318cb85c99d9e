"""A space that decides more than a network: caches, journals, reports and bundles keep its designs apart."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.cache import CachedSource, MeasuringKey
from nas_edge.latency.source import Candidate
from nas_edge.networks.analysis import analyze
from nas_edge.runs.run import Run
from nas_edge.spaces.decisions import Architecture
from tests.support.command_line import nas_edge
from tests.support.joint import ELEMENTS, Elements, JointSettings, JointSpace, joint_space
from tests.support.joint_package import install_joint

SPACE = joint_space(JointSettings(), classes=10, channels=1)
SEARCH = (
    *("search", "--preset", "smoke", "--space", "joint", "--latency", "elements", "--method", "multi-trial"),
    *("--set", "search.quality.source=parameters"),
)


def candidate(space: JointSpace, *choices: int) -> Candidate:
    architecture = Architecture(choices)
    return Candidate(space.build(architecture), architecture)


def test_designs_differ_by_what_is_beside_the_network() -> None:
    small, large = SPACE.build(Architecture((1, 0))), SPACE.build(Architecture((1, 2)))
    assert small.network == large.network
    assert small.fingerprint != large.fingerprint
    assert small.fingerprint == SPACE.build(Architecture((1, 0))).fingerprint


def test_the_cache_keeps_one_latency_per_design(tmp_path: Path) -> None:
    key = MeasuringKey("int8", "work per element", "", "")
    candidates = [candidate(SPACE, 1, elements) for elements in range(len(ELEMENTS))]
    macs = analyze(candidates[0].network).macs
    with CachedSource(Elements(), tmp_path / "cache.sqlite", key) as source:
        first = [source.submit(one).result().latency_ms for one in candidates]
        again = [source.submit(one).result().latency_ms for one in candidates]
        assert (source.misses, source.hits) == (3, 3)
    assert first == again == [macs / elements for elements in ELEMENTS]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the module path that holds the joint space as a package."""
    install_joint(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_run_keeps_designs_apart_when_it_is_resumed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, asked = site / "run", site / "asked.log"
    options = ["--set", "task.name=tabular", "--target-ms", "150", "--steps", "20", "--set", "runs.checkpoint_steps=8"]
    options += ["--controller", "reinforce"]  # its policy, and so its decisions, are in the report
    done = nas_edge(*SEARCH, *options, "--out", str(run))
    assert done.returncode == 0, done.stderr
    assert "(simulated by work per element)" in done.stdout
    whole = {name: (run / name).read_bytes() for name in ("journal.jsonl", "result.json", "stages/selection.jsonl")}
    page = (run / "report" / "report.json").read_text(encoding="utf-8")
    assert "accelerator.elements" in page

    # As after a crash: the journal is ahead of its checkpoint, and the cache has to be made again of it.
    (run / "result.json").unlink()
    for file in run.glob("measurements.sqlite*"):
        file.unlink()
    newest = sorted((run / "checkpoints").iterdir())[-1]
    shutil.rmtree(newest) if newest.is_dir() else newest.unlink()
    monkeypatch.setenv("ASKED_LOG", str(asked))
    resumed = nas_edge("search", "--resume", str(run))
    assert resumed.returncode == 0, resumed.stderr
    assert {name: (run / name).read_bytes() for name in whole} == whole
    assert not asked.exists(), "latencies that the journal has were asked for again"

    # What the cache was made of are designs, not networks.
    space = joint_space(JointSettings(input_size=16), 0, 3)
    architectures = {record["architecture"] for record in Run.open(run).journal()}
    designs = {space.build(Architecture.parse(text)).fingerprint for text in architectures}
    networks = {space.build(Architecture.parse(text)).needed_network().fingerprint for text in architectures}
    assert len(designs) == len(architectures) > len(networks)
    with sqlite3.connect(run / "measurements.sqlite") as connection:
        rows = dict(connection.execute("SELECT network, measurement FROM measurements"))
    assert rows.keys() == designs
    for text in architectures:
        one = candidate(space, *Architecture.parse(text).choices)
        kept = LatencyAnswer.from_json(json.loads(rows[one.design.fingerprint]))
        assert kept == Elements().submit(one).result()


def test_a_sampled_architecture_is_described_with_what_is_beside_the_network() -> None:
    architecture = SPACE.sample(np.random.default_rng(0))
    assert SPACE.describe(architecture)["accelerator.elements"] in ELEMENTS


@pytest.mark.slow
def test_the_bundle_names_what_was_decided_beside_the_network(site: Path) -> None:
    brief = ["training.epochs=1", "export.precision=float32"]
    for measure in ("measure", "final_measure"):
        brief += [f"{measure}.max_risk=1", f"{measure}.max_relative_half_width=5"]
    options = [part for setting in brief for part in ("--set", setting)]
    run = site / "run"
    done = nas_edge(*SEARCH, *options, "--target-ms", "1000", "--steps", "6", "--out", str(run))
    assert done.returncode == 0, done.stderr
    manifest = json.loads((run / "bundle" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["decisions"]["accelerator.elements"] in ELEMENTS
    assert manifest["details"]["latency_estimate"]["kind"] == "simulated"
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    elements = manifest["decisions"]["accelerator.elements"]
    space = joint_space(JointSettings(input_size=16), 10, 1)
    design = space.build(Architecture.parse(result["rows"][0]["architecture"]))
    assert design.extras == {"elements": elements}
    assert result["latency_estimate"]["latency_ms"] == analyze(design.needed_network()).macs / elements

"""The whole way on the real components: search on this host, train, int8, bundle, export again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from device_agents.api import Measurement
from nas_edge import pipeline
from nas_edge.config import RunConfig, load_config
from nas_edge.errors import InfeasibleError
from nas_edge.export.bundle import replay_golden, verify_bundle
from nas_edge.export.verify import check_precision
from nas_edge.progress import Reporter
from nas_edge.report import result_text
from nas_edge.runs.example_scores import read_example_scores
from nas_edge.runs.paired_result import PairedResult
from nas_edge.runs.result import Outcome, RunResult, read_result
from nas_edge.runs.run import Run
from nas_edge.search.trials import Trial
from nas_edge.spaces import SPACES
from nas_edge.spaces.reference import MOBILENET_V2_STYLE
from nas_edge.tasks import metric_of
from nas_edge.tasks.classification import ACCURACY, mcnemar_p_value, read_labels, wilson_interval
from tests.support import chromium
from tests.support.spaces import TINY

# As short as a run can be that still does everything.
SHORT = (
    "search.steps=8",
    "search.samples_per_step=1",
    "search.delay_fraction=0.5",
    "training.epochs=2",
    "measure.max_relative_half_width=5",
    "final_measure.max_relative_half_width=5",
    # The machines that run tests are shared; what is worth what on them is tested elsewhere, with made-up samples.
    "measure.max_risk=1",
    "final_measure.max_risk=1",
)


def quiet() -> Reporter:
    return Reporter(Console(quiet=True))


def short_run(*settings: str) -> RunConfig:
    return load_config("smoke", settings=(*SHORT, *settings))


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    """A space, and a network to compare with, that are compiled and converted in a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SPACES.entries, "tiny", TINY)
        shallow = replace(MOBILENET_V2_STYLE["mobilenet-v2"], ops=(0, 0, *19 * (6,), 0))
        patch.setitem(MOBILENET_V2_STYLE, "mobilenet-v2", shallow)
        yield


@pytest.fixture(
    scope="module",
    params=[("tiny", "mobilenet-v2"), pytest.param(("proxylessnas", "proxylessnas-mobile"), marks=pytest.mark.slow)],
    ids=["tiny", "published"],
)
def smoke(
    request: pytest.FixtureRequest, tiny: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, RunResult]:
    """One short run with everything in it."""
    folder = tmp_path_factory.mktemp("runs") / "smoke"
    everything = ("export.compare=true", "search.random_baseline=true", "target.reference_share=5")
    space, reference = request.param
    config = short_run(f"space.name={space}", f"space.reference={reference}", *everything)
    return folder, pipeline.search(config, folder, quiet())


def test_a_run_delivers_what_it_promises(smoke: tuple[Path, RunResult]) -> None:
    folder, result = smoke
    reference = Run.open(folder).config.space.reference_name
    assert [row.name for row in result.rows] == ["winner", "best of random", reference]
    for row in result.rows:
        assert set(row.accuracy) == set(row.latency) == {"int8", "float32"}
        assert all(measurement.statistics is not None for measurement in row.latency.values())
    bundle = verify_bundle(folder / "bundle")
    check_precision(bundle.models["int8"], "int8")
    assert read_labels(bundle.files) == tuple(map(str, range(10)))
    assert max(replay_golden(bundle).values()) <= 2
    manifest = bundle.manifest
    assert manifest["architecture"] == result.rows[0].architecture
    assert manifest["models"]["int8"]["accuracy"] == result.rows[0].accuracy["int8"]
    assert manifest["models"]["int8"]["latency"]["conditions"]["runtime"] == "ai_edge_litert"
    report = json.loads((folder / "report" / "report.json").read_text())
    assert report["state"] == "finished"
    assert (folder / "report" / "index.html").exists()
    found = json.loads((folder / "result.json").read_text())
    assert found["target_ms"] == result.target_ms
    assert Measurement.from_json(found["rows"][0]["latency"]["int8"]) == result.rows[0].latency["int8"]
    table = result_text.table(result, folder, metric_of(Run.open(folder).config.task))
    assert "best of random" in table
    assert f"accuracy: on {result.test_images} test examples, with 95% intervals" in table
    _check_intervals_and_tests(folder, result)


def _check_intervals_and_tests(folder: Path, result: RunResult) -> None:
    """Accuracies have their intervals, and are compared as what was kept of each image says."""
    scores = read_example_scores(Run.open(folder))
    assert scores is not None
    for row in result.rows:
        for precision, accuracy in row.accuracy.items():
            of_images = scores.scores[row.name, precision]
            assert len(of_images) == result.test_images
            assert of_images.mean() == pytest.approx(accuracy)
            assert row.accuracy_interval[precision] == wilson_interval(accuracy, len(of_images))
    winner = scores.scores["winner", "int8"]
    for row in result.rows[1:]:
        p_value = mcnemar_p_value(winner, scores.scores[row.name, "int8"])
        assert row.accuracy_vs_winner == PairedResult("McNemar", len(winner), p_value)
        assert str(row.accuracy_vs_winner) in result_text.table(result, folder, ACCURACY)
    manifest = verify_bundle(folder / "bundle").manifest
    int8 = manifest["models"]["int8"]
    assert tuple(int8["accuracy_interval"]) == result.winner.accuracy_interval["int8"]
    assert manifest["details"]["comparisons"] == json.loads(json.dumps(result.comparisons()))
    assert result.winner.accuracy_text("int8", ".2%") in (folder / "bundle" / "README.md").read_text()
    assert read_result(Run.open(folder)) == result


@pytest.mark.needs("chromium")
def test_the_report_of_a_run_opens_in_a_browser(smoke: tuple[Path, RunResult], tmp_path: Path) -> None:
    page = (smoke[0] / "report" / "index.html").as_uri()
    with chromium.open_browser(tmp_path) as browser:
        browser.open(page)
        browser.draw_all()
        browser.screenshot("real-run")
        assert browser.script("return document.querySelectorAll('.plot canvas').length") >= 5
        assert browser.console() == []
        assert browser.requests() == [page]


def test_every_trial_is_in_the_journal_with_its_samples(smoke: tuple[Path, RunResult]) -> None:
    run = Run.open(smoke[0])
    trials = [Trial.from_json(record) for record in run.journal()]
    assert [trial.step for trial in trials] == [4, 5, 6, 7]
    for trial in trials:
        assert trial.measurement is not None
        assert trial.measurement.samples_ms


def test_a_finished_run_is_exported_again(smoke: tuple[Path, RunResult], tmp_path: Path) -> None:
    folder, _ = smoke
    result = pipeline.export(folder, tmp_path / "bundle", None, quiet())
    assert [row.name for row in result.rows] == ["winner"]
    first, again = verify_bundle(folder / "bundle"), verify_bundle(tmp_path / "bundle")
    assert again.models == first.models
    other = pipeline.export(folder, tmp_path / "other", None, quiet(), precision="int8-float-io")
    assert other.precision == "int8-float-io"
    assert other.winner.accuracy["int8-float-io"] == pytest.approx(result.winner.accuracy["int8"], abs=0.02)
    assert set(verify_bundle(tmp_path / "other").models) == {"float32", "int8-float-io"}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Colour images of two classes, in a file."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = rng.integers(0, 100, (60, 20, 20, 3)) + labels[:, None, None, None] * 120
    np.savez(tmp_path / "photos.npz", x=images.astype(np.uint8), y=labels, class_names=np.array(["dark", "light"]))
    return tmp_path / "photos.npz"


@pytest.mark.parametrize("space", ["tiny", pytest.param("mobilenet-v3-like", marks=pytest.mark.slow)])
def test_other_space_other_data_float_from_shared_weights(photos: Path, tmp_path: Path, space: str) -> None:
    settings: list[str] = [
        f"space.name={space}",
        "export.precision=float32",
        "export.weights=shared",
        "search.weights.batch_size=8",
        "training.batch_size=8",
        "search.samples_per_step=2",
        "target.limit=none",
        "target.latency_ms=0.5",
        "target.objectives=[{resource: macs, target: 1000000, beta: -0.05}]",
        "target.limits={file_size_bytes: 10000000, resident_memory_bytes: 1000000000}",
        f"data.source={photos}",
    ]
    result = pipeline.search(short_run(*settings), tmp_path / "run", quiet())
    bundle = verify_bundle(tmp_path / "run" / "bundle")
    assert set(bundle.models) == {"float32"}
    assert read_labels(bundle.files) == ("dark", "light")
    assert result.meets_limit
    trials: list[Any] = list(Run.open(tmp_path / "run").journal())
    named = {"latency_ms", "macs", "file_size_bytes", "resident_memory_bytes"}
    assert all(set(trial["usage"]) == named for trial in trials if trial["usage"])
    assert [each.objective.resource for each in result.resources] == [
        "macs",
        "file_size_bytes",
        "resident_memory_bytes",
    ]
    _, size, memory = result.resources
    assert size.use.value == len(bundle.files["model_float32.tflite"])
    assert memory.use.value == result.winner.latency["float32"].peak_memory_bytes
    assert (size.outcome, memory.outcome) == (Outcome.MET, Outcome.MET)
    assert bundle.manifest["details"]["resources"]["float32"]["file_size_bytes"]["value"] == size.use.value
    assert read_result(Run.open(tmp_path / "run")) == result


@pytest.mark.slow
def test_an_infeasible_target_is_answered_with_the_fastest(tmp_path: Path) -> None:
    with pytest.raises(InfeasibleError, match="the fastest measured takes"):
        pipeline.search(short_run("space.name=tiny", "target.latency_ms=0.00001"), tmp_path / "run", quiet())

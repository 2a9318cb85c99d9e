"""Runs that every version so far wrote are listed, reported, selected from, compared and continued.

    schema_1    no checksums, no checkpoints, no environment.json
    schema_2    `search.controller` a name; results without a schema
    schema_3    today's; a table's, so that continuing one takes no device and no TensorFlow

What takes long to make is not kept: `schema_1` and `schema_2` are without weights, bundles and checkpoints.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from nas_edge.cli import nas_edge
from nas_edge.data.dataset import Dataset
from nas_edge.data.sources import load
from nas_edge.errors import RunError, TargetMissedError, TargetUnknownError
from nas_edge.runs.columns import read_trials
from nas_edge.runs.environment import environment
from nas_edge.runs.journal import Journal, add_checksums, read_journal
from nas_edge.runs.run import Run
from nas_edge.search.trials import Trial
from nas_edge.stages.context import open_devices
from tests.support.faults import Bench, FaultyFiles, Killed
from tests.support.sources import FunctionSource

FOLDERS = Path(__file__).parent / "folders"
FINISHED = ("schema_1_finished", "schema_2_finished", "schema_3_finished")
STOPPED = ("schema_1_stopped", "schema_2_stopped", "schema_3_stopped")
# What earlier versions delivered, in their own figures.
DELIVERED = {"schema_1_finished": 0.0206, "schema_2_finished": 0.0121, "schema_3_finished": 4.0}


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Copies a run of `folders`; those of tables find their table."""
    monkeypatch.chdir(FOLDERS)

    def copy(name: str) -> Path:
        return Path(shutil.copytree(FOLDERS / name, tmp_path / "runs" / name))

    return copy


def command(*arguments: object) -> Result:
    done = CliRunner().invoke(nas_edge, list(map(str, arguments)))
    # This machine may be slower than the one that made the run, and others may disturb it.
    assert done.exception is None or isinstance(done.exception, (TargetMissedError, TargetUnknownError)), done.output
    return done


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_run_is_listed_reported_and_selected_from(old: Callable[[str], Path], name: str) -> None:
    folder = old(name)
    listed = command("runs", folder.parent).output.splitlines()[1]
    assert name in listed
    assert "finished" in listed
    shown = command("report", folder, "--text").output
    assert f"{DELIVERED[name]:.3g}" in shown
    assert "not known" not in shown.splitlines()[0]
    accuracies = not name.startswith("schema_3")  # which is of a table
    assert ("test accuracy" in shown) == accuracies
    assert "McNemar" not in shown, "what each image came to was not kept"
    answered = command("select", folder, "--target-ms", "5").output
    assert "no trial was that fast" not in answered
    with pytest.raises(RunError, match="is finished"):
        CliRunner().invoke(nas_edge, ["search", "--resume", str(folder)], catch_exceptions=False, standalone_mode=False)


@pytest.mark.parametrize("name", STOPPED)
def test_a_stopped_run_is_listed_reported_and_selected_from(old: Callable[[str], Path], name: str) -> None:
    folder = old(name)
    assert "stopped" in command("runs", folder.parent).output.splitlines()[1]
    assert "--resume" in " ".join(command("report", folder, "--text").output.split())
    assert "no trial was that fast" not in command("select", folder, "--target-ms", "5").output


def test_runs_of_all_versions_are_compared(old: Callable[[str], Path]) -> None:
    shown = command("compare", *map(old, FINISHED)).output
    assert all(name in shown for name in FINISHED)
    assert "McNemar" not in shown


def test_a_run_of_a_table_ends_as_if_it_had_not_been_stopped(old: Callable[[str], Path]) -> None:
    """As the version that wrote both ended it."""
    stopped, whole = old("schema_3_stopped"), FOLDERS / "schema_3_finished"
    command("search", "--resume", stopped)
    for name in ("journal.jsonl", "policy.jsonl", "stages/selection.jsonl"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes(), name
    # A later version may say more of a result.
    expected = json.loads((whole / "result.json").read_text())
    if expected["latency_estimate"]:  # later results say the interval, too
        expected["latency_estimate"].setdefault("interval_ms", None)
    result = json.loads((stopped / "result.json").read_text())
    for row, earlier in zip(result["rows"], expected["rows"], strict=True):
        assert {name: row[name] for name in earlier} == earlier
    assert {name: result[name] for name in expected} == {**expected, "rows": result["rows"]}


ACCEPTING = ("max_risk=1", "max_relative_half_width=5", "patience_s=0")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["schema_1_stopped", "schema_2_stopped"])
def test_a_search_on_a_device_is_continued(old: Callable[[str], Path], name: str) -> None:
    """Without checkpoints the search is made again, with the latencies that were recorded."""
    folder = old(name)
    run = Run.open(folder)
    before = read_trials(run.path("journal.jsonl"))
    with open_devices(run.config) as device:
        on_this_machine(folder, asdict(device.key))
    # The machines that run tests are shared; what is worth what on them is tested elsewhere.
    accepting = (f"{group}.{limit}" for group in ("measure", "final_measure") for limit in ACCEPTING)
    changed = [part for setting in ("runs.tensorboard=false", *accepting) for part in ("--set", setting)]
    output = command("search", "--resume", folder, *changed).output
    assert ("the search is repeated from its first step" in output) == (name == "schema_1_stopped")
    after = run.trials()
    known = len(before)
    assert known
    assert after.step[:known] == before.step
    # Another machine computes other last bits; what is proposed first does not depend on them.
    assert after.architecture[:2] == before.architecture[:2]
    assert after.latency_ms[:2] == before.latency_ms[:2]
    assert max(after.rewarded_step) == run.config.search.steps - 1
    assert run.finished


def on_this_machine(folder: Path, measured_with: dict[str, str]) -> None:
    """Makes the run one that was measured on this machine."""
    name = folder / "environment.json"
    if name.exists():
        content = json.loads(name.read_text())
        content["sessions"][0]["measured_with"] = measured_with
        name.write_text(json.dumps(content))
        return
    journal = folder / "journal.jsonl"
    text = journal.read_text().replace("cd10704a4a96a288", measured_with["device"])
    runtime, version = measured_with["runtime"].split()
    text = text.replace('"runtime_version":"2.3.0"', f'"runtime_version":"{version}"')
    journal.write_text(text.replace('"runtime":"ai_edge_litert"', f'"runtime":"{runtime}"'))


def plain(journal: Path) -> None:
    """Rewrites a journal as the first version would have written it."""
    records = read_journal(journal).records
    journal.write_text("".join(json.dumps(record, separators=(",", ":")) + "\n" for record in records))


def test_a_search_of_the_first_version_is_repeated_bit_identically_from_its_journal(
    bench: Bench, whole: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "old"
    shutil.copytree(tmp_path / "whole", folder)
    shutil.rmtree(folder / "checkpoints")
    journal = folder / "journal.jsonl"
    plain(journal)
    as_it_was = journal.read_bytes()
    assert add_checksums(journal, folder / "kept.jsonl")
    assert (folder / "kept.jsonl").read_bytes() == as_it_was
    assert not add_checksums(journal, folder / "kept.jsonl")  # it has them now

    def asked(candidate: object) -> Any:
        pytest.fail("the device was asked for what the journal holds")

    search = bench.recorded(folder, bench.loop(FunctionSource(asked)), say=pytest.fail)
    search.run()
    assert bench.outcome(folder, search) == whole


def test_a_journal_without_checksums_is_read_and_not_appended_to(old: Callable[[str], Path]) -> None:
    run = Run.open(old("schema_1_stopped"))
    contents = read_journal(run.path("journal.jsonl"))
    assert (contents.plain, len(contents.records), contents.torn) == (True, 8, 100)
    trials = run.trials()
    assert [Trial.from_json(record).latency_ms for record in run.journal()] == trials.latency_ms
    before = run.path("journal.jsonl").read_bytes()
    with pytest.raises(RunError, match="has no checksums, and cannot be appended to"):
        run.open_journal(pytest.fail)
    assert run.path("journal.jsonl").read_bytes() == before


def test_the_very_first_records_were_rewarded_in_their_step(old: Callable[[str], Path]) -> None:
    assert Run.open(old("schema_1")).trials().rewarded_step == [6]


@pytest.mark.parametrize("damage", ['{"step":1,', '{"step":1}[', "x"])
def test_a_damaged_record_is_named(old: Callable[[str], Path], damage: str) -> None:
    journal = old("schema_1_stopped") / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([lines[0], f"{damage}\n", *lines[2:]]))
    with pytest.raises(RunError, match=r"line 2 of .*journal.jsonl"):
        read_journal(journal)


def test_a_death_while_checksums_are_added_loses_nothing(old: Callable[[str], Path]) -> None:
    source = FOLDERS / "schema_1_stopped" / "journal.jsonl"
    folder = old("schema_1_stopped")
    journal, kept = folder / "journal.jsonl", folder / "journal.schema-1.jsonl"
    expected = read_journal(source).records
    for at in range(20):
        files = FaultyFiles(at, Killed, partly=True)
        journal.write_bytes(source.read_bytes())
        kept.unlink(missing_ok=True)
        try:
            add_checksums(journal, kept, files)
        except Killed:
            assert read_journal(journal).records == expected
            add_checksums(journal, kept)
        assert read_journal(journal).records == expected
        assert kept.read_bytes() == source.read_bytes()
        if files.calls <= at:
            break
    else:
        pytest.fail("it never came to its end")


def test_what_the_first_version_measured_on_is_taken_from_its_trials(old: Callable[[str], Path]) -> None:
    run = Run.open(old("schema_1_stopped"))
    said: list[str] = []
    run.prepare_to_write(said.append)
    assert "may differ from an uninterrupted run" in said[0]
    run.prepare_to_write(pytest.fail)
    with closing(Journal(run.path("journal.jsonl"), pytest.fail)) as journal:
        assert len(journal) == 8
    same = {"precision": "int8", "device": "cd10704a4a96a288", "runtime": "ai_edge_litert 2.3.0", "settings": "x"}
    assert run.add_session(environment({"model": "AMD EPYC"}, same)) == []
    with pytest.raises(RunError, match="was measured with device cd10704a4a96a288"):
        run.add_session(environment({"model": "another"}, {**same, "device": "0"}))


def test_a_latency_source_of_the_second_version_is_the_same_one(old: Callable[[str], Path]) -> None:
    run = Run.open(old("schema_2_stopped"))
    sessions = run.read_json("environment.json")
    measured = sessions["sessions"][0]["measured_with"]
    sessions["sessions"][0]["measured_with"] = {**measured, "judge": "table of costs"}
    run.write_json("environment.json", sessions)
    run.add_session(environment({}, {**measured, "latency_source": "table of costs"}))
    with pytest.raises(RunError, match="latency_source table of costs"):
        run.add_session(environment({}, {**measured, "latency_source": "another"}))


def test_images_that_are_skipped_must_be_those_of_the_first_start(old: Callable[[str], Path]) -> None:
    run = Run.open(old("schema_3_stopped"))
    measured = run.read_json("environment.json")["sessions"][0]["measured_with"]
    run.add_session(environment({}, measured, {"ignored": {}, "skipped": ["a.png: truncated"]}))  # the first tells
    sessions = run.read_json("environment.json")
    del sessions["sessions"][0]
    run.write_json("environment.json", sessions)
    run.add_session(environment({}, measured, {"ignored": {".txt": 1}, "skipped": ["a.png: in other words"]}))
    with pytest.raises(RunError, match=r"b.png was read and is now skipped; a.png was skipped and is now read"):
        run.add_session(environment({}, measured, {"ignored": {}, "skipped": ["b.png: truncated"]}))


def test_the_data_must_be_those_of_the_first_start(old: Callable[[str], Path]) -> None:
    run = Run.open(old("schema_3_stopped"))
    measured = run.read_json("environment.json")["sessions"][0]["measured_with"]
    digits = load("digits")
    run.add_session(environment({}, measured, digits.to_json()))  # the first does not tell

    class InAnotherOrder(Dataset):
        reading = 2

    with pytest.raises(RunError, match="read them in another order, or split them in other parts"):
        run.add_session(environment({}, measured, InAnotherOrder(digits.images, digits.labels).to_json()))
    sessions = run.read_json("environment.json")
    del sessions["sessions"][0]
    run.write_json("environment.json", sessions)
    run.add_session(environment({}, measured, digits.to_json()))
    with pytest.raises(RunError, match="there were 1797 examples, and there are 3"):
        run.add_session(environment({}, measured, Dataset(digits.images[:3], digits.labels[:3]).to_json()))
    with pytest.raises(RunError, match="other classes, or another order"):
        run.add_session(environment({}, measured, Dataset(digits.images, digits.labels[::-1]).to_json()))

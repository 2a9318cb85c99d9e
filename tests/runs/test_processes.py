"""`nas-edge search` as it is run: processes of their own, on recorded latencies, compared, stopped and continued."""

from __future__ import annotations

import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from device_agents.api import Measurement, Verdict
from device_agents.replay import model_key
from nas_edge.export.bundle import verify_bundle
from nas_edge.runs.run import Run
from nas_edge.spaces import SPACES
from tests.support.command_line import nas_edge
from tests.support.measurements import CONDITIONS
from tests.support.recordings import of_tiny_space, record
from tests.support.spaces import TINY

WAIT_S = 240
COMMAND = """
import sys
from tests.support.spaces import TINY
from nas_edge import cli
from nas_edge.spaces import SPACES
SPACES.entries["tiny"] = TINY
cli.main()
"""
SETTINGS = (
    "space.name=tiny",
    "space.reference=proxylessnas-mobile",
    "target.latency_ms=0.5",
    "target.limit=none",
    "search.steps=30",
    "search.samples_per_step=2",
    "search.delay_fraction=0.2",
    "search.op_warmup_fraction=0",
    "search.filter_warmup_fraction=0",
    "search.reward_delay_steps=1",
    "training.epochs=1",
    "export.precision=float32",
    "runs.checkpoint_steps=7",
)


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and standard error, which holds no traceback."""
    _, err = process.communicate(timeout=WAIT_S)
    assert "Traceback" not in err, err
    return process.returncode, err


def new_search(recording: Path, out: Path, *settings: str) -> list[str]:
    chosen = [f"--set={setting}" for setting in (*SETTINGS, *settings)]
    return ["search", "--preset=smoke", f"--device=replay:{recording}", f"--out={out}", *chosen]


def here(*arguments: str) -> tuple[int, str]:
    """As `ended`, without a process of its own."""
    done = nas_edge(*arguments)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr


def last_line(err: str) -> str:
    """The error, which is one line."""
    (line,) = [line for line in err.splitlines() if line.startswith("nas-edge:")]
    return line


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SPACES.entries, "tiny", TINY)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def recording(folder: Path) -> Path:
    """Every network of the space, each answered after a while; one kernel size fails."""
    failing = Measurement(Verdict.OUT_OF_MEMORY, "made up", busy_s=0.02)
    return record(folder / "times.json", of_tiny_space(Verdict.OK, failing))


@pytest.fixture(scope="module")
def whole(folder: Path, recording: Path) -> Iterator[Run]:
    """A run that nothing happened to."""
    code, err = here(*new_search(recording, folder / "whole"))
    assert code == 0, err
    return Run.open(folder / "whole")


def content(run: Run) -> dict[str, Any]:
    """Everything two runs must agree in; times and paths are left out."""
    with closing(sqlite3.connect(run.path("measurements.sqlite"))) as connection:
        rows = connection.execute("SELECT network, measurement FROM measurements ORDER BY network").fetchall()
    bundle = verify_bundle(run.path("bundle"))
    files = ("journal.jsonl", "policy.jsonl", "stages/target.json", "stages/selection.jsonl", "winner/weights.npz")
    result = run.read_json("result.json")["rows"][0]
    return {
        **{name: run.path(name).read_bytes() for name in files if run.path(name).exists()},
        "checkpoint": max(path.name for path in run.path("checkpoints").iterdir()),  # the name holds the checksum
        "measurements": rows,
        "models": bundle.models,
        "winner": (result["architecture"], result["quality"], result["accuracy"]),
    }


@pytest.mark.slow
def test_two_processes_with_one_seed_do_the_same_though_one_is_terminated_and_its_database_damaged(
    folder: Path, recording: Path, whole: Run
) -> None:
    process = start(*new_search(recording, folder / "again"))
    journal = folder / "again" / "journal.jsonl"
    give_up_s = time.monotonic() + WAIT_S
    while not journal.exists() or journal.read_bytes().count(b"\n") < 10:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up_s
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    code, err = ended(process)
    assert code == 130
    assert "stopping after this step" in err
    stopped = re.search(r"nas-edge: stopped after step (\d+) of 30; continue with: nas-edge search --resume (.*)", err)
    assert stopped, err
    run = Run.open(Path(stopped[2]))
    assert run.checkpoints.newest_step() == int(stopped[1])
    assert not run.finished
    assert not run.in_use

    database = run.path("measurements.sqlite")
    database.write_bytes(b"\0" * 4096 + database.read_bytes()[4096:])
    code, err = ended(start("search", "--resume", str(run.folder)))
    assert code == 0, err
    assert "measurements.sqlite is damaged (file is not a database)" in err
    found, expected = content(run), content(whole)
    assert {name for name in expected if found.get(name) != expected[name]} == set()


def test_a_finished_run_is_not_continued_nor_any_with_other_settings(folder: Path, whole: Run) -> None:
    before = {path: path.read_bytes() for path in whole.folder.rglob("*") if path.is_file()}
    code, err = here("search", "--resume", str(whole.folder))
    assert code == 2
    assert f"{whole.folder} is finished: its bundle is {whole.path('bundle')}; for more, start a new run" in err
    assert {path: path.read_bytes() for path in whole.folder.rglob("*") if path.is_file()} == before

    with Run.create(folder / "other", whole.config) as other:
        pass
    code, err = here("search", "--resume", str(other.folder), "--seed=7", "--target-ms=3", "--steps=99")
    assert code == 2
    line = last_line(err)
    assert "seed is 0 and cannot become 7, target.latency_ms is 0.5 and cannot become 3.0: " in line
    assert "These may change: search.steps, device.addresses" in line


def test_when_every_candidate_fails_that_is_said_and_said_again(folder: Path) -> None:
    failing = folder / "failing"
    search = new_search(record(folder / "none.json", {}), failing, "search.steps=8")
    for words in (search, ["search", "--resume", str(failing)]):
        code, err = here(*words)
        assert code == 1
        assert re.match(
            "nas-edge: none of the 14 candidates could be timed reliably on recorded phone; "
            "the last one: load_failed, .* start a new run",
            last_line(err),
        )
        assert "--resume" not in err
    verdicts = Run.open(failing).trials().verdict
    assert verdicts == ["load_failed"] * 14


@pytest.mark.slow
def test_a_hard_limit_has_three_ends_with_codes_of_their_own(folder: Path, recording: Path) -> None:
    run, unknown = folder / "hard", "nas-edge: whether the hard limit of 0.5000 ms is met is not known"
    # The recording has the candidates, but not the file that is delivered.
    code, err = here(*new_search(recording, run, "target.limit=hard", "search.steps=8"))
    assert (code, last_line(err)) == (4, unknown), err
    delivered = model_key((run / "bundle" / "model_float32.tflite").read_bytes())

    def device(name: str, *samples_ms: float, verdict: Verdict = Verdict.OK) -> str:
        measurement = Measurement(verdict, "", samples_ms=samples_ms * 8, busy_s=0.01, conditions=CONDITIONS)
        return f"--device=replay:{record(folder / f'{name}.json', {delivered: measurement})}"

    for name, expected, address in (
        ("met", 0, device("fast", 0.43, 0.45)),
        ("missed", 3, device("slow", 0.6, 0.62)),
        ("unknown", 4, device("straddling", 0.49, 0.51)),
        ("unknown", 4, device("unsteady", 0.1, 0.12, verdict=Verdict.UNSTEADY)),
    ):
        bundle = folder / f"bundle {address.rpartition('/')[2]}"
        done = nas_edge("export", str(run), address, f"--out={bundle}")
        assert done.returncode == expected, done.stderr
        assert f"bundle: {bundle}" in done.stdout
        assert verify_bundle(bundle).manifest["details"]["outcome"] == name

    # As it is when the run is stopped before its result is written.
    for left in ("result.json", "stages/final.jsonl"):
        (run / left).unlink()
    code, err = here("search", "--resume", str(run), device("slow", 0.6, 0.62))
    assert (code, last_line(err)) == (3, "nas-edge: the hard limit of 0.5000 ms is missed"), err
    assert Run.open(run).read_json("result.json")["outcome"] == "missed"


def test_a_run_that_noise_stopped_goes_on_with_longer_measurements_as_it_says(folder: Path) -> None:
    """On a device of recordings: at first nothing that it says can be relied on."""
    run = folder / "noisy"
    noisy, calm = (
        record(folder / f"{name}.json", of_tiny_space(verdict))
        for name, verdict in (("noisy", Verdict.UNSTEADY), ("calm", Verdict.OK))
    )
    code, err = here(*new_search(noisy, run))
    assert code == 1
    advice = re.search(r"the last 20 .*unsteady, .* or measure longer: nas-edge (search --resume .*)$", last_line(err))
    assert advice, err
    assert err.count("--resume") == 1
    code, err = here("select", str(run), "--target-ms=1")
    assert code == 1
    assert re.search(rf"none of the \d+ trials of {run} has both .* \(\d+ unsteady\); .* --resume {run}", err), err

    code, err = here(*shlex.split(advice[1]), f"--device=replay:{calm}")
    assert code == 0, err
    assert "continuing with other" in err
    first, second = Run.open(run).read_json("environment.json")["sessions"]
    assert first["measured_with"] == second["measured_with"]
    durations = [session["measuring"]["measure"]["max_duration_s"] for session in (first, second)]
    assert durations[0] is None
    assert durations[1] > 2.4
    verdicts = Run.open(run).trials().verdict
    assert verdicts[0] == "unsteady"
    assert verdicts[-1] == "ok"

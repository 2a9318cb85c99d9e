"""Run folders made to do harm: every command that looks at one ends, and says in one line what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import sys
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nas_edge import cli
from nas_edge.runs.run import Run
from tests.support.finished_runs import finished_run

HUGE = 10**400
COMMANDS: dict[str, list[str]] = {
    "runs": ["runs", "FOLDER"],
    "report": ["report", "RUN", "--text"],
    "compare": ["compare", "RUN", "RUN"],
    "select": ["select", "RUN", "--target-ms", "1"],
}
EVERYONE = frozenset(COMMANDS)
SETTINGS = EVERYONE - {"select"}
TARGET = frozenset({"runs", "report", "compare"})
REPORTS = frozenset({"report", "compare"})
COMPARES = frozenset({"compare"})


def write(name: str, text: str) -> Callable[[Run], object]:
    return lambda run: run.path(name).write_text(text)


def link(name: str, to: str) -> Callable[[Run], object]:
    def replace(run: Run) -> None:
        run.path(name).unlink(missing_ok=True)
        run.path(name).symlink_to(to)

    return replace


def fifo(name: str) -> Callable[[Run], object]:
    def replace(run: Run) -> None:
        run.path(name).unlink(missing_ok=True)
        os.mkfifo(run.path(name))

    return replace


def sparse(name: str, size: int) -> Callable[[Run], object]:
    """Zeros without end, on a disk that has no room for them."""

    def replace(run: Run) -> None:
        run.path(name).write_bytes(b"")
        os.truncate(run.path(name), size)

    return replace


def set_in(name: str, *path: Any, to: Any) -> Callable[[Run], object]:
    """Another value in a JSON file, or in the last record of a journal, with a checksum that fits."""

    def replace(run: Run) -> None:
        file = run.path(name)
        journal = name.endswith(".jsonl")
        record = json.loads(file.read_bytes().splitlines()[1])["record"] if journal else json.loads(file.read_text())
        inner = record
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = to
        if not journal:
            file.write_text(json.dumps(record))
            return
        # `Infinity` is what json.loads takes and a journal does not write.
        marked = json.loads(json.dumps(record).replace("Infinity", '"ENDLESS"').replace("NaN", '"NONE"'))
        file.unlink()
        with closing(run.open_journal(pytest.fail, name)) as journal_file:
            journal_file.append(marked)
        _replace_in_record(file, b'"ENDLESS"', b"Infinity")
        _replace_in_record(file, b'"NONE"', b"NaN")

    return replace


def _replace_in_record(path: Path, old: bytes, new: bytes) -> None:
    head, line = path.read_bytes().splitlines()
    body = line.partition(b'"record":')[2][:-1].replace(old, new)
    path.write_bytes(b'%s\n{"seq":1,"crc":"%08x","record":%s}\n' % (head, zlib.crc32(b"1:" + body), body))


def bare_usage(value: Any) -> Callable[[Run], object]:
    return set_in("journal.jsonl", "usage", to={"latency_ms": value})


# What is done to a folder, and which commands cannot but refuse it.
VARIANTS: dict[str, tuple[Callable[[Run], object], frozenset[str]]] = {
    "huge target": (write("stages/target.json", f'{{"target_ms": {HUGE}}}'), TARGET),
    "infinite target": (write("stages/target.json", '{"target_ms": Infinity}'), TARGET),
    "nested config": (write("config.json", "[" * 200_000), EVERYONE),
    "nested target": (write("stages/target.json", '{"target_ms": ' + "[" * 200_000), TARGET),
    "nested result": (write("result.json", '{"rows": ' + "[" * 200_000), REPORTS),
    "huge steps": (set_in("config.json", "search", "steps", to=HUGE), SETTINGS),
    "escapes in config": (set_in("config.json", "\x1b]0;pwn\x07", to=1), SETTINGS),
    "long setting": (set_in("config.json", "s" * 100_000, to=1), SETTINGS),
    "pipe for journal": (fifo("journal.jsonl"), EVERYONE),
    "pipe for lock": (fifo("lock"), REPORTS),
    "pipe for config": (fifo("config.json"), EVERYONE),
    "pipe for policy": (fifo("policy.jsonl"), frozenset()),
    "endless journal": (link("journal.jsonl", "/dev/zero"), EVERYONE),
    "endless config": (link("config.json", "/dev/zero"), EVERYONE),
    "sparse journal": (sparse("journal.jsonl", 1 << 40), EVERYONE),
    "sparse config": (sparse("config.json", 1 << 40), EVERYONE),
    "long sequence number": (write("journal.jsonl", f'{{"seq":{"9" * 9000},"crc":"00000000","record":1}}\n'), EVERYONE),
    "endless step": (set_in("journal.jsonl", "step", to=float("inf")), EVERYONE),
    "huge step": (set_in("journal.jsonl", "step", to=HUGE), EVERYONE),
    "huge rewarded step": (set_in("journal.jsonl", "rewarded_step", to=HUGE), EVERYONE - REPORTS),
    "huge quality": (set_in("journal.jsonl", "quality", to=HUGE), EVERYONE),
    "quality above 1": (set_in("journal.jsonl", "quality", to=1e308), EVERYONE),
    "huge reward": (set_in("journal.jsonl", "reward", to=HUGE), EVERYONE),
    "text for latency": (bare_usage("fast"), EVERYONE),
    "no latency": (bare_usage(float("nan")), EVERYONE),
    "endless latency": (bare_usage(float("inf")), EVERYONE),
    "huge latency": (bare_usage(HUGE), EVERYONE),
    "list for verdict": (set_in("journal.jsonl", "measurement", "verdict", to=[1]), EVERYONE),
    "huge conditions": (set_in("journal.jsonl", "measurement", "conditions", "cpu_mhz_after", to=HUGE), frozenset()),
    "endless policy step": (set_in("policy.jsonl", "step", to=float("inf")), frozenset()),
    "huge policy step": (set_in("policy.jsonl", "step", to=HUGE), frozenset()),
    "huge probability": (set_in("policy.jsonl", "probabilities", to=[[HUGE]]), frozenset()),
    "accuracy above 1": (set_in("result.json", "rows", 0, "accuracy", "int8", to=1e308), REPORTS),
    "interval elsewhere": (set_in("result.json", "rows", 0, "accuracy_interval", "int8", to=[0.1, 0.2]), REPORTS),
    "interval of nothing": (set_in("result.json", "rows", 0, "accuracy_interval", "int4", to=[0.1, 0.2]), REPORTS),
    "number for interval": (set_in("result.json", "rows", 0, "accuracy_interval", "int8", to=1), REPORTS),
    "huge p-value": (set_in("result.json", "rows", 1, "accuracy_vs_winner", "p_value", to=HUGE), REPORTS),
    "escapes in test": (set_in("result.json", "rows", 1, "accuracy_vs_winner", "test", to="\x1b[31m"), REPORTS),
    "huge test images": (set_in("result.json", "test_images", to=HUGE), REPORTS),
    "pipe for scores": (fifo("test_scores.npz"), COMPARES),
    "other scores": (write("test_scores.npz", "PK"), COMPARES),
    "huge ends": (
        write(
            "bundle/manifest.json", f'{{"models":{{"float32":{{"input":{{"shape":[1,1,1,1e999]}}}}}},"classes":{HUGE}}}'
        ),
        frozenset(),
    ),
}


@pytest.mark.timeout(60)
@pytest.mark.skipif(sys.platform == "win32", reason="has no pipes among its files")
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_hostile_folder_gets_one_line(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variant: str,
) -> None:
    harm, refusing = VARIANTS[variant]
    run = Run(tmp_path / "run")
    shutil.copytree(finished, run.folder)
    run.path("bundle").mkdir()
    harm(run)
    for command, arguments in COMMANDS.items():
        places = {"FOLDER": str(tmp_path), "RUN": str(run.folder)}
        monkeypatch.setattr(sys, "argv", ["nas-edge", *(places.get(each, each) for each in arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsys.readouterr()
        assert "unexpected" not in out + err, command
        assert all(character.isprintable() or character == "\n" for character in out + err), command
        if command == "runs":
            assert stopped.value.code == 0
            assert err == ""
            assert len(out.splitlines()) == 2
            refused = "unreadable" in out
            assert len(out) < 3000
        else:
            refused = stopped.value.code in (1, 2)
            assert refused or stopped.value.code == 0
            assert len(err.splitlines()) == refused
        assert refused or command not in refusing, command
        assert len(err) < 1500, command


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("runs") / "run", 3).folder

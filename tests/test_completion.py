"""What a real bash offers at TAB, and that it does so quickly: without TensorFlow."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from nas_edge import cli
from nas_edge.cli import completion
from nas_edge.config import RunConfig, load_config
from nas_edge.runs.run import Run

BASH = shutil.which("bash")

# Stands for the installed command, so that the shell finds it under its name.
_COMMAND = f'#!/bin/sh\nexec "{sys.executable}" -c "from nas_edge.cli import main; main()" "$@"\n'


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with the command on its path, two runs, and something that is none."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nas-edge").write_text(_COMMAND)
    (tmp_path / "bin" / "nas-edge").chmod(0o755)
    (tmp_path / "work").mkdir()
    for name in ("photos", "phone"):
        with Run.create(tmp_path / "work" / "runs" / name, load_config("smoke")):
            pass
    (tmp_path / "work" / "runs" / "phooey").mkdir()
    (tmp_path / "work" / "times.json").write_text("{}")
    (tmp_path / "work" / "model.tflite").write_text("")
    return tmp_path


@pytest.fixture(scope="module")
def bash_script() -> str:
    """What `nas-edge completion bash` prints; `test_in_a_real_shell` has bash evaluate it."""
    return CliRunner().invoke(cli.nas_edge, ["completion", "bash"]).output


def offered(bash_script: str, home: Path, line: str) -> tuple[list[str], str]:
    """What the script makes bash offer for a line, and what it sets with compopt."""
    # The words as bash splits them: its word breaks are words of their own.
    words = [part for part in re.split(r"(?<=[:=])|(?=[:=])|\s+", line) if part] + [""] * (line[-1] in " ")
    script = f"""
        compopt() {{ echo "compopt $1 $2" >&2; }}
        {bash_script}
        COMP_LINE={_quoted(line)} COMP_POINT={len(line)}
        COMP_WORDS=({" ".join(map(_quoted, words))}) COMP_CWORD={len(words) - 1}
        _nas_edge_completion nas-edge
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    environment = {**os.environ, "PATH": f"{home / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(
        [str(BASH), "--norc", "-c", script],
        cwd=home / "work",
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split(), done.stderr.strip()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


@pytest.mark.skipif(BASH is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "expected", "options"),
    [
        ("nas-edge doc", ["doctor"], ""),
        ("nas-edge devices cl", ["clean"], ""),
        ("nas-edge devices clean ho", ["host:"], "compopt -o nospace"),
        ("nas-edge search --pres", ["--preset"], ""),
        (
            "nas-edge search --preset ",
            ["smoke", "demo", "laptop", "few-images", "fine-tuning", "single-gpu", "full"],
            "",
        ),
        ("nas-edge search --space prox", ["proxylessnas", "proxylessnas-enlarged"], ""),
        ("nas-edge search --space=mob", ["mobilenet-v3-like"], ""),
        ("nas-edge search --joint acc", ["accelerator"], ""),
        ("nas-edge spaces mob", ["mobilenet-v3-like"], ""),
        ("nas-edge search --device ho", ["host:"], "compopt -o nospace"),
        ("nas-edge search --device replay:ti", [], "compopt -o default"),
        ("nas-edge search --latency table:", [], "compopt -o default"),
        ("nas-edge search --latency dev", ["device"], ""),
        ("nas-edge search --data di", ["digits"], ""),
        ("nas-edge search --data pro", ["procedural"], ""),
        ("nas-edge search --data tfd", ["tfds:"], "compopt -o nospace"),
        ("nas-edge search --data pho", [], "compopt -o default"),
        ("nas-edge search --set search.st", ["search.steps="], "compopt -o nospace"),
        ("nas-edge search --resume ", ["runs/phone", "runs/photos"], ""),
        ("nas-edge search --resume runs/pho", ["runs/phone", "runs/photos"], ""),
        ("nas-edge search --resume ./runs/phot", ["./runs/photos"], ""),
        ("nas-edge export nothing/", [], ""),
        ("nas-edge export runs/phooey/", [], "compopt -o dirnames"),
        ("nas-edge benchmark --device host: mod", [], "compopt -o default"),
        ("nas-edge search --device nothing:x", [], ""),
    ],
)
def test_bash_offers(bash_script: str, home: Path, line: str, expected: list[str], options: str) -> None:
    found, said = offered(bash_script, home, line)
    assert found == expected
    assert set(said.splitlines()) == ({options} if options else set())


def test_what_follows_a_colon_replaces_only_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_agents.android.adb_shell_transport.usb_serials", lambda: ["R58M1", "0A:2"])
    monkeypatch.setattr("device_agents.android.address.server_runs", lambda: False)
    for line, expected in {
        "nas-edge search --device adb:": "plain,R58M1\nplain,0A:2",
        "nas-edge search --device adb:R5": "plain,R58M1",
        "nas-edge search --device=adb:R5": "plain,R58M1",
        "nas-edge search --device adb:0A:": "plain,2",
        "nas-edge devices doctor adb-usb:R": "plain,R58M1",
        "nas-edge devices clean adb-usb:R": "plain,R58M1",
        "nas-edge search --device 'adb:R": "plain,R58M1",
    }.items():
        monkeypatch.setenv("COMP_WORDS", line)
        assert completion.BashWithColons(cli.nas_edge, {}, "nas-edge", "_NAS_EDGE_COMPLETE").complete() == expected


@pytest.mark.skipif(BASH is None, reason="needs bash")
def test_in_a_real_shell(home: Path) -> None:
    """TAB is pressed in a terminal, and the line that comes of it is run."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.pop("COLUMNS", None)
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))  # so wide that no line is folded
        os.environ.update(PATH=f"{home / 'bin'}:{os.environ['PATH']}", PS1="$ ", TERM="dumb")
        os.chdir(home / "work")
        os.execl(str(BASH), "bash", "--norc", "--noprofile", "-i")

    def until(text: str) -> str:
        seen, deadline_s = "", time.monotonic() + 120
        while text not in seen:
            assert time.monotonic() < deadline_s, seen
            if select.select([terminal], [], [], 1.0)[0]:
                seen += os.read(terminal, 65536).decode(errors="replace")
        return seen

    try:
        os.write(terminal, b'eval "$(nas-edge completion bash)"; echo rea"dy"\n')
        until("ready\r\n")
        os.write(terminal, b"nas-edge --vers\t")
        until("--version ")
        os.write(terminal, b"\n")
        until("version 0")
        os.write(terminal, b"nas-edge spaces mob\t | grep -c block\n")
        assert "nas-edge spaces mobilenet-v3-like  | grep" in until("\r\n80\r\n")
        os.write(terminal, b"nas-edge search --device hos\t")
        until("--device host:")
    finally:
        os.close(terminal)
        os.kill(pid, 9)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_asks_the_command(shell: str) -> None:
    out = CliRunner().invoke(cli.nas_edge, ["completion", shell]).output
    assert f"_NAS_EDGE_COMPLETE={shell}_complete" in out


def test_every_setting_is_offered() -> None:
    command, parameter = cli.nas_edge.commands["search"], None
    offered = [item.value for item in completion.settings(command.make_context("search", ["--dry-run"]), parameter, "")]  # type: ignore[arg-type]
    assert "search.weights.learning_rate=" in offered
    assert {path.partition(".")[0].rstrip("=") for path in offered} == set(RunConfig.model_fields)


def test_what_cannot_be_found_out_is_not_offered(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[str]:
        raise RuntimeError("a package's metadata is damaged")

    monkeypatch.setattr("device_agents.android.adb_shell_transport.usb_serials", broken)
    assert completion.devices(None, None, "adb:") == []  # type: ignore[arg-type]
    assert completion.runs(None, None, str(home / "nothing" / "x")) == []  # type: ignore[arg-type]


def test_completing_does_not_load_what_takes_long() -> None:
    code = (
        "import sys\nfrom nas_edge import cli\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'tensorflow', 'keras', 'pandas', 'sklearn', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    for line in ("nas-edge search --space p", "nas-edge search --set se", "nas-edge search --device ", "nas-edge "):
        environment = {**os.environ, "_NAS_EDGE_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": "9"}
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.argv = ['nas-edge']\n{code}"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.startswith("plain,")

"""The live line fits every terminal; a log gets plain lines."""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import pytest
from rich.console import Console

from nas_edge import progress
from nas_edge.progress import Reporter, Stage

FACTS = ("0.103/0.110 ms", "reward 0.953", "best 0.961", "quality 0.970", "54 °C", "entropy 49.1", "device measuring")


def rendered(stage: Stage, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, legacy_windows=False)
    console.print(stage)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("\n") == 1
    return str(text.rstrip("\n"))


def test_the_line_never_fills_a_terminal() -> None:
    stage = Stage("search", 27_050, 12_345, lambda: FACTS)
    for width in (*range(2, 130), 300):
        assert len(rendered(stage, width)) < width


def test_a_narrow_terminal_gets_the_most_important_facts_whole() -> None:
    stage = Stage("search", 1200, 1012, lambda: FACTS)
    shown = rendered(stage, 80).split("  ")
    assert shown == ["search 1012/1200", *FACTS[:4]]
    assert rendered(stage, 200).strip().endswith("  ".join(("search 1012/1200", *FACTS)))
    assert rendered(stage, 200).startswith("━")
    assert rendered(stage, 12) == "search 1012"


def test_a_stage_of_unknown_length() -> None:
    stage = Stage("selection", None)
    stage(3, "0.1 ms")
    assert rendered(stage, 200) == "selection 3  0.1 ms"


def test_wide_characters_count_twice() -> None:
    stage = Stage("search", 10, 1, lambda: ["手機" * 8, "next"])
    assert rendered(stage, 50) == "search 1/10  " + "手機" * 8
    assert rendered(stage, 45) == "search 1/10"


def test_what_comes_from_files_and_devices_cannot_break_the_line() -> None:
    assert rendered(Stage("measuring", 2, 1, lambda: ["a\nb\x1b[2J\r[red]c.tflite"]), 80).endswith(
        "a?b?[2J?[red]c.tflite"
    )


def test_the_time_left_follows_the_pace_and_leaves_the_first_step_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stage = Stage("search", 100)
    assert stage.parts() == ["search 0/100"]
    now[0] = 60.0  # compiling
    stage(1)
    assert stage.parts() == ["search 1/100"]
    for done in range(2, 12):
        now[0] += 2.0
        stage(done, f"loss {done}")
    assert stage.parts() == ["search 11/100 2:58 left", "loss 11"]
    now[0] += 12.4
    assert stage.parts() == ["search 11/100 2:58 left", "this step 0:12", "loss 11"]
    now[0] = 3725.0
    stage(100)
    assert stage.parts() == ["search 100/100 in 1:02:05", "loss 11"]


def plain(
    monkeypatch: pytest.MonkeyPatch, work: Callable[[Stage], None], facts: Callable[[], Sequence[str]]
) -> list[str]:
    monkeypatch.setattr(progress, "PLAIN_INTERVAL_S", 0.01)
    monkeypatch.setattr(progress, "PLAIN_SILENCE_S", 0.03)
    console = Console(file=io.StringIO(), width=40, soft_wrap=True)
    with Reporter(console).stage("search", 3, facts=facts) as stage:
        work(stage)
    return str(console.file.getvalue()).splitlines()  # type: ignore[attr-defined]


def test_a_log_gets_whole_lines_and_always_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = plain(monkeypatch, lambda stage: stage(3), lambda: FACTS)
    assert re.fullmatch(r"search 3/3 in 0:\d\d  " + re.escape("  ".join(FACTS)), lines[-1])


def test_a_log_tells_that_something_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def waiting() -> list[str]:
        asked.append(1)
        return ["waiting for the device for 12 s"]

    def hang(stage: Stage) -> None:
        while len(asked) < 2:
            time.sleep(0.005)

    lines = plain(monkeypatch, hang, waiting)
    assert lines
    assert set(lines) == {"search 0/3  waiting for the device for 12 s"}


def test_how_far_a_stage_got_is_printed_also_when_it_fails() -> None:
    console = Console(file=io.StringIO())

    def fail() -> None:
        with Reporter(console).stage("search", 3) as stage:
            stage(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert console.file.getvalue() == "search 1/3\n"  # type: ignore[attr-defined]


_IN_TERMINAL = """
import time
from nas_edge.progress import Reporter
reporter = Reporter()
with reporter.stage("search", 4, facts=lambda: ["fact %d" % i for i in range(30)]) as show:
    for done in range(1, 5):
        time.sleep(0.3)
        show(done)
        reporter.say("said " + "x" * 30)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
@pytest.mark.parametrize("kind", ["xterm", "dumb"])
def test_in_a_real_terminal(kind: str) -> None:
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    environment = {**os.environ, "TERM": kind}
    for name in ("COLUMNS", "LINES", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR"):
        environment.pop(name, None)
    with subprocess.Popen(
        [sys.executable, "-c", _IN_TERMINAL], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        raw = b""
        try:
            while chunk := os.read(ours, 65536):
                raw += chunk
        except OSError:  # Linux's way of saying that the other end is closed
            pass
    os.close(ours)
    assert process.returncode == 0
    text = raw.decode()
    assert text.count("said xxx") == 4
    if kind == "dumb":
        assert "\x1b" not in text
        return
    visible = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    shown = [line for line in re.split(r"[\r\n]+", visible) if line.startswith("search")]
    assert len(shown) >= 4
    assert max(map(len, shown)) < 60
    assert re.match(r"search 4/4 in \d+:\d\d", shown[-1])


def test_a_name_with_a_line_break_breaks_no_line() -> None:
    console = Console(file=io.StringIO(), width=40, soft_wrap=True)
    Reporter(console).say("data a\nb\x1b[2J: 3 images")
    assert console.file.getvalue() == "data a?b?[2J: 3 images\n"  # type: ignore[attr-defined]
    assert rendered(Stage("model\r\n", 2, 1), 80).endswith("model?? 1/2")

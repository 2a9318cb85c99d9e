"""The command line as a user meets it: one clear line, the right exit code, nothing overwritten."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest

from nas_edge import api, cli
from nas_edge.errors import ConfigError, SpaceError


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `nas-edge ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["nas-edge", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        cli.main()
    captured = capsys.readouterr()
    code = exit_info.value.code
    assert isinstance(code, int)
    return code, captured.out, captured.err


def one_line(text: str) -> str:
    """The message, which must be a single line without a traceback."""
    assert "Traceback" not in text
    lines = [line for line in text.strip().splitlines() if line.startswith(("nas-edge:", "Error:"))]
    assert len(lines) == 1, text
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--device", "toaster:"], "toaster:"),
        (["--device", "host:somewhere"], "host:somewhere"),
        (["--space", "imaginary"], "proxylessnas-enlarged"),
        (["--target-ms", "0"], "--target-ms expects latencies"),
        (["--target-ms", "soon"], "soon"),
        (["--at-most", "file_size_bytes"], "expected RESOURCE=VALUE, for example energy_mj=2"),
        (["--objective", "joules=2"], "expected one of the resources latency_ms"),
        (["--steps", "-3"], "-3"),
        (["--data", "/nowhere/at/all"], "/nowhere/at/all"),
        (["--data", ""], "data.source may not be empty"),
        (["--device", "hots:"], "did you mean host:"),
        (["--set", "search.stepz=3"], "'search.stepz'; did you mean search.steps?"),
        (["--set", "serch.steps=3"], "did you mean search?"),
        (["--set", "validation_batch_size=3"], "did you mean search.validation_batch_size"),
        (["--set", "search=3"], "search is a group of settings; name one of them, for example search.method"),
        (["--set", "xyz=3"], "unknown setting 'xyz'; see"),
        (["--threads", "257"], "threads must be a whole number from 1 to 256; received 257"),
        (["--set", "steps"], "path=value"),
        (["--config", "/nowhere/settings.yaml"], "/nowhere/settings.yaml"),
        (["--precision", "int4"], "int4"),
        (["--preset", "huge"], "huge"),
    ],
)
def test_misuse_gets_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    expected: str,
) -> None:
    out = tmp_path / "run"
    preset = [] if "--preset" in arguments else ["--preset", "smoke"]
    code, _, err = run(monkeypatch, capsys, "search", *preset, *arguments, "--out", str(out))
    assert code == 2
    assert expected in one_line(err)
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments",
    [["--debug", "spaces", "imaginary"], ["spaces", "--debug", "imaginary"], ["spaces", "imaginary", "--debug"]],
)
def test_debug_shows_the_traceback_wherever_it_stands(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["nas-edge", *arguments])
    with pytest.raises(SpaceError, match="imaginary"):
        cli.main()


def test_debug_is_in_the_help_of_every_command() -> None:
    def commands(group: click.Group) -> Iterator[click.Command]:
        for command in group.commands.values():
            yield command
            if isinstance(command, click.Group):
                yield from commands(command)

    for command in (cli.nas_edge, *commands(cli.nas_edge)):
        assert "--debug" in command.get_help(click.Context(command)), command.name


def test_out_is_required(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(monkeypatch, capsys, "search", "--preset", "smoke")
    assert code == 2
    assert "--out" in one_line(err)


def test_an_existing_run_is_never_overwritten(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "precious").write_text("keep me")
    code, _, err = run(monkeypatch, capsys, "search", "--preset", "smoke", "--out", str(tmp_path))
    assert code == 2
    assert str(tmp_path) in one_line(err)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_an_output_folder_that_cannot_be_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if os.geteuid() == 0:
        out = Path("/proc/nas-edge-run")  # permissions do not stop the superuser, but this file system does
    else:
        tmp_path.chmod(0o555)
        out = tmp_path / "run"
    code, _, err = run(monkeypatch, capsys, "search", "--preset", "smoke", "--out", str(out))
    assert code == 2
    assert str(out) in one_line(err)


def test_bad_data_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "one_class.npz"
    np.savez(path, x=np.zeros((20, 8, 8, 1), np.uint8), y=np.zeros(20, np.int32))
    out = tmp_path / "run"
    code, _, err = run(monkeypatch, capsys, "search", "--preset", "smoke", "--data", str(path), "--out", str(out))
    assert code == 2
    assert "one_class.npz" in one_line(err)
    assert not out.exists()


def test_export_of_what_is_no_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, _, err = run(monkeypatch, capsys, "export", str(tmp_path), "--out", str(tmp_path / "bundle"))
    assert code == 2
    assert "config.json" in one_line(err)


def test_spaces_and_devices_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(monkeypatch, capsys, "spaces")
    assert code == 0
    assert "2.156e+21" in out
    assert "8.481e+42" in out
    code, out, _ = run(monkeypatch, capsys, "spaces", "mobilenet-v3-like")
    assert code == 0
    assert len(out.strip().splitlines()) == 87
    assert run(monkeypatch, capsys, "spaces", "show", "mobilenet-v3-like") == (0, out, "")
    code, out, _ = run(monkeypatch, capsys, "devices")
    assert code == 0
    assert "host:" in out


def test_a_space_is_checked_for_hardware(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(monkeypatch, capsys, "spaces", "check", "mobilenet-v3-like", "--hardware", "edgetpu")
    assert code == 1
    assert "cannot run  HARD_SWISH  in every network (5), k3 (13)" in out
    assert "slow        MUL         se (20)" in out
    assert "without se (20 decisions), relu in place of hard_swish (52 layers)" in out
    code, out, _ = run(monkeypatch, capsys, "spaces", "check", "proxylessnas", "--hardware", "edgetpu")
    assert (code, out.splitlines()[-1]) == (0, "every choice fits")
    code, _, err = run(monkeypatch, capsys, "spaces", "check", "proxylessnas", "--hardware", "tpu")
    assert code == 2
    assert "unknown hardware 'tpu'" in one_line(err)


def test_settings_are_listed_with_their_meaning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--at-most", "file_size_bytes=9e3", "--at-most", "macs=1e6", "--objective", "energy_mj=2")
    code, out, _ = run(monkeypatch, capsys, "search", "--preset", "demo", "--steps", "7", "--list-settings", *asked)
    assert code == 0
    assert "target.limits={file_size_bytes: 9000.0, macs: 1000000.0}  #" in out
    assert "resource: energy_mj, target: 2.0}]" in out
    assert "search.steps=7" in out
    assert "target.latency_ms=null  # latency to aim at" in out


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["devices"], ["spaces"]])
def test_light_commands_do_not_load_tensorflow(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from nas_edge import cli\n"
        f"sys.argv = ['nas-edge', *{arguments!r}]\n"
        "try:\n    cli.main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'tensorflow', 'keras', 'pandas', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("preset", [(), ("--preset", "laptop"), ("--preset", "few-images"), ("--preset", "full")])
@pytest.mark.parametrize("how", ["--dry-run", "--out"])
def test_no_long_search_begins_on_pictures_that_nobody_named(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    preset: tuple[str, ...],
    how: str,
) -> None:
    out = tmp_path / "run"
    code, _, err = run(monkeypatch, capsys, "search", *preset, *(("--out", str(out)) if how == "--out" else (how,)))
    assert code == 2
    assert "--data (data.source) is missing" in err
    assert not out.exists()


@pytest.mark.parametrize("preset", [None, "laptop"])
def test_nor_does_one_from_python(tmp_path: Path, preset: str | None) -> None:
    out = tmp_path / "run"
    with pytest.raises(ConfigError, match=r"data\.source\) is missing"):
        api.search(out, preset=preset, settings={"search.steps": 10})
    with pytest.raises(ConfigError, match=r"data\.source\) is missing"):
        api.estimate(api.configure(preset=preset))
    assert not out.exists()

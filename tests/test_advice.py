"""Whatever a message tells users to do can be done where they are."""

from __future__ import annotations

import ast
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

import device_agents
import nas_edge
from nas_edge import cli
from nas_edge.config import RunConfig, load_config
from nas_edge.formatting import command
from nas_edge.latency.hybrid import HybridSettings
from nas_edge.runs.run import Run
from tests.support import command_line

ROOTS = [Path(str(package.__file__)).parent for package in (nas_edge, device_agents)]
# Of other programs, such as pip.
FOREIGN_OPTIONS = {"--force-reinstall"} | {
    f"--{name}"
    for name in (
        "clear",
        "disable-pip-version-check",
        "no-input",
        "quiet",
        "no-index",
        "find-links",
        "only-binary",
        "python-version",
        "platform",
        "address",
        "node-name",
        "num-cpus",
        "resources",
    )
}


def commands() -> dict[tuple[str, ...], click.Command]:
    """Every command of the command line by its words."""
    found: dict[tuple[str, ...], click.Command] = {}

    def walk(words: tuple[str, ...], entry: click.Command) -> None:
        found[words] = entry
        if isinstance(entry, click.Group):
            for name, inner in entry.commands.items():
                walk((*words, name), inner)

    walk((), cli.nas_edge)
    return found


def options(words: tuple[str, ...]) -> set[str]:
    entry = commands()[words]
    with click.Context(entry) as context:
        return {option for parameter in entry.get_params(context) for option in parameter.opts}


def texts() -> Iterator[tuple[str, str]]:
    """Every text of the program that is no docstring, with where it stands; what varies is FOLDER in it."""
    for path in (path for root in ROOTS for path in sorted(root.rglob("*.py"))):
        if "testing" in path.parts:
            continue  # what the suites say is for developers
        tree = ast.parse(path.read_text())
        parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
        bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            where = f"{path}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.JoinedStr):
                yield where, "".join(str(v.value) if isinstance(v, ast.Constant) else "FOLDER" for v in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (parts | bare):
                yield where, node.value
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "command":
                words = (str(a.value) if isinstance(a, ast.Constant) else "FOLDER" for a in node.args)
                yield where, " ".join(["nas-edge", *words])


def test_every_command_in_a_message_exists_with_its_options() -> None:
    known = commands()
    wrong, seen = [], 0
    for where, text in texts():
        for advised in re.findall(r"nas-edge((?: [a-z-]+)+(?: (?:--[a-z-]+|[A-Z:/]+|[\w.=]+)\b)*)", text):
            words = tuple(re.findall(r"^ ([a-z]+)(?: ([a-z]+)\b(?!:))?", advised)[0])
            name = next((words[:n] for n in (2, 1) if words[:n] in known), ())
            if not name:
                wrong.append(f"{where}: there is no command{advised}")
                continue
            seen += 1
            wrong += [
                f"{where}: {' '.join(name)} has no {option}"
                for option in re.findall(r"--[a-z][a-z-]*", advised)
                if option not in options(name)
            ]
    assert wrong == []
    assert seen > 20


def test_every_option_in_a_message_is_one_of_some_command() -> None:
    known = FOREIGN_OPTIONS.union(*(options(words) for words in commands()))
    unknown = [
        f"{where}: {option}"
        for where, text in texts()
        for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*(?![\w])", text)
        if " " in text and option not in known
    ]
    assert unknown == []


def test_every_setting_in_a_message_exists() -> None:
    named = {name for _, text in texts() for name in re.findall(r"--set ([a-z_]+(?:\.[a-z_]+)+)=", text)}
    assert {"measure.max_duration_s", "training.learning_rate"} <= named
    described = RunConfig().model_dump()
    described["latency"] |= HybridSettings().model_dump()  # what it says of itself
    for name in named:
        group = described
        for part in name.split("."):
            assert part in group, name
            group = group[part]


def test_a_command_can_be_copied_whatever_the_folder_is_called() -> None:
    folder = Path("/tmp/my runs/it's one")
    assert shlex.split(command("search", "--resume", folder)) == ["nas-edge", "search", "--resume", str(folder)]


def nas_edge_says(*arguments: str) -> tuple[int, str]:
    """The exit code and the last line of standard error."""
    done = command_line.nas_edge(*arguments)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.strip().splitlines()[-1]


def test_a_run_that_is_not_finished_says_how_to_finish_it(tmp_path: Path) -> None:
    with Run.create(tmp_path / "my run", load_config("smoke")):
        pass
    code, said = nas_edge_says("export", str(tmp_path / "my run"), "--out", str(tmp_path / "bundle"))
    assert code == 2
    advised = said.partition("to finish it: nas-edge ")[2]
    assert shlex.split(advised) == ["search", "--resume", str(tmp_path / "my run")]


def test_an_image_that_was_damaged_since_the_run_began_is_not_to_be_skipped(tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8), dtype=np.uint8)
    for label in "ab":
        (data / label).mkdir(parents=True)
        for i in range(30):
            Image.fromarray(pixels).save(data / label / f"{i}.png")
    (data / "a" / "0.png").write_text("hello")
    settings = {"data.source": str(data), "target.latency_ms": 1.0}
    with Run.create(run, load_config("smoke", flags=settings)):
        pass
    code, said = nas_edge_says("search", "--preset=smoke", f"--data={data}", "--target-ms=1", f"--out={tmp_path / 'x'}")
    assert (code, said.endswith(f"0.png is not {IMAGE}; {NEW}")) == (2, True), said
    code, said = nas_edge_says("search", "--resume", str(run))
    assert (code, said.endswith(f"0.png is not {IMAGE}; {RESUMED}")) == (2, True), said
    # That is why the one advice does not do for the other.
    code, said = nas_edge_says("search", "--resume", str(run), "--skip-bad")
    assert (code, "data.skip_bad is False and cannot become True" in said) == (2, True), said


IMAGE = "a PNG, JPEG, WebP, BMP, GIF or TIFF image"
NEW = "replace or remove it, or skip it with --skip-bad"
RESUMED = "restore it from a copy, or start a new run, with --skip-bad if it is to be left out"


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("KeyError('kernel')", "'kernel' is missing"),
        ("ZeroDivisionError('division by zero')", "division by zero"),
        ("AssertionError()", "no reason given"),
    ],
)
def test_what_nobody_foresaw_is_told_without_names_of_classes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], raised: str, said: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise eval(raised)

    monkeypatch.setattr(cli.nas_edge, "main", fail)
    monkeypatch.setattr(sys, "argv", ["nas-edge", "runs"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"nas-edge: unexpected error: {said}; run again with --debug for the traceback\n"
    monkeypatch.setattr(sys, "argv", ["nas-edge", "runs", "--debug"])
    with pytest.raises(type(eval(raised))):
        cli.main()

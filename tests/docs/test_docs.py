"""What the documentation says works: its code is run, its commands exist, its links lead somewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from nas_edge import cli
from nas_edge.spaces import SPACES
from tests.support.blocks import Block, blocks_of, commands_of
from tests.support.packages import install
from tests.support.spaces import TINY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
EVERYTHING = [ROOT / "README.md", *PAGES]

# What their blocks need cannot be had here, see `tests/support/blocks.py`.
NOT_RUN = {"phone", "farm", "photos"}

# A page's searches do everything a search does, but as little of it as possible.
SHORT = (
    "search.steps=8",
    "search.samples_per_step=1",
    "search.delay_fraction=0.5",
    "training.epochs=1",
    "measure.max_relative_half_width=5",
    "final_measure.max_relative_half_width=5",
    # The machines that run tests are shared; what is worth what on them is tested elsewhere, with made-up samples.
    "measure.max_risk=1",
    "final_measure.max_risk=1",
)


def by_name(page: Path) -> str:
    return page.name


def test_there_are_pages() -> None:
    assert len(PAGES) > 5


@pytest.mark.parametrize("page", EVERYTHING, ids=by_name)
def test_every_command_and_option_exists(page: Path) -> None:
    for name, *arguments in commands_of(page):
        if name.startswith("-"):
            continue
        command = cli.nas_edge.commands.get(name)
        assert command is not None, f"{page.name} names the command {name!r}"
        if not arguments:
            continue
        try:
            command.make_context(name, arguments)
        except click.exceptions.Exit:
            pass  # --help
        except click.ClickException as error:
            raise AssertionError(f"{page.name}: nas-edge {name} {' '.join(arguments)}: {error.message}") from error


@pytest.mark.parametrize("page", EVERYTHING, ids=by_name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_pages_are_short_and_in_the_index(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").splitlines()) <= 120
    assert page.name == "index.md" or f"({page.name})" in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "page", ["own-space.md", "own-layer.md", "own-quality-source.md", "own-training-method.md", "own-device-agent.md"]
)
def test_what_a_user_writes_has_thirty_lines_at_most(page: str) -> None:
    code, *_ = (block for block in blocks_of(ROOT / "docs" / page) if block.language == "python" and block.marks)
    assert len([line for line in code.text.splitlines() if line.strip()]) <= 30


@pytest.fixture(scope="module")
def searched() -> dict[tuple[str, ...], Path]:
    """Runs by the command that made them; a page that begins with the same search as another gets a copy."""
    return {}


@pytest.fixture
def runner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, searched: dict[tuple[str, ...], Path]
) -> Callable[[Block], None]:
    """Runs blocks one after another, in a folder of their own."""
    monkeypatch.setitem(SPACES.entries, "tiny", TINY)
    site, folder = tmp_path / "site", tmp_path / "page"
    for new in (site, folder):
        new.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(site)
    names: dict[str, Any] = {"__name__": "__page__"}

    def nas_edge(arguments: list[str]) -> None:
        made = None
        if arguments[0] == "search" and "--out" in arguments:
            made = Path(arguments[arguments.index("--out") + 1])
            # Only a one-shot search has a phase in which the controller rests.
            one_shot = not {"multi-trial", "--table"} & set(arguments)
            short = [setting for setting in SHORT if one_shot or "delay" not in setting]
            arguments = [*arguments, *(part for setting in short for part in ("--set", setting))]
            arguments += [] if {"--space", "--table"} & set(arguments) else ["--space", "tiny"]  # compiled in a second
            if tuple(arguments) in searched:
                shutil.copytree(searched[tuple(arguments)], made)
                return
        monkeypatch.setattr(sys, "argv", ["nas-edge", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 0, f"nas-edge {' '.join(arguments)}"
        if made is not None:
            searched[tuple(arguments)] = made.absolute()

    def run_command(words: list[str]) -> None:
        if words[0] == "nas-edge":
            nas_edge(words[1:])
        elif words == ["pip", "install", "."]:
            _install_here(site)
        elif words[:3] == ["python", "-m", "pytest"]:
            paths = [str(site), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
            subprocess.run([sys.executable, *words[1:]], env=environment, check=True)
        else:
            raise AssertionError(f"the documentation's tests cannot run {words}")

    def run(block: Block) -> None:
        if block.language == "text" or NOT_RUN & set(block.marks):
            return
        if block.language == "sh":
            for words in block.commands:
                run_command(words)
        elif block.marks:
            (file,) = block.marks
            Path(file).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            # Padded, so that a traceback shows the page's lines.
            code = "\n" * block.line + block.text
            exec(compile(code, str(block.page), "exec"), names)
        else:
            raise AssertionError(f"{block.page.name}:{block.line}: what is to be done with {block.language!r}?")

    return run


def _install_here(site: Path) -> None:
    """A stand-in for pip, which would need the network to build: installs the modules that pyproject.toml names."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    modules = {name: Path(f"{name}.py").read_text() for name in project["tool"]["setuptools"]["py-modules"]}
    about = project["project"]
    install(site, about["name"], about["entry-points"], modules, about["version"])


def _slow_where_it_searches(page: Path) -> Any:
    slow = "nas-edge search --preset" in page.read_text(encoding="utf-8")
    return pytest.param(page, marks=pytest.mark.slow if slow else ())


@pytest.mark.parametrize("page", [*map(_slow_where_it_searches, PAGES)], ids=[page.name for page in PAGES])
def test_code_runs(page: Path, runner: Callable[[Block], None]) -> None:
    for block in blocks_of(page):
        runner(block)

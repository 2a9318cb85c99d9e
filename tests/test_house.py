"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import configparser
import inspect
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import grimp
import pytest

from device_agents.schemes import FAMILIES, PLUGINS
from nas_edge import testing
from nas_edge.controllers import CONTROLLERS
from nas_edge.joint import JOINTS
from nas_edge.latency import LATENCY_SOURCES
from nas_edge.quality import QUALITY_SOURCES
from nas_edge.resources import RESOURCES
from nas_edge.rewards import REWARDS
from nas_edge.search.methods import METHODS
from nas_edge.spaces import SPACES
from nas_edge.tasks import TASKS
from nas_edge.training.methods import TRAINING_METHODS
from nas_edge.training.optimizers import OPTIMIZERS

ROOT = Path(__file__).parents[1]
PACKAGES = ("nas_edge", "device_agents")

MOST_LINES = 60


def sources() -> Iterator[tuple[Path, str]]:
    """Every module of both packages, with its path in the project."""
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            yield file, file.relative_to(ROOT).as_posix()


def long_functions(source: str, most_lines: int = MOST_LINES) -> Iterator[str]:
    """Names of the functions that take more lines, from `def` to their end, docstring included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            if node.end_lineno - node.lineno + 1 > most_lines:
                yield node.name


def test_no_function_is_longer_than_sixty_lines() -> None:
    found = {(path, name) for file, path in sources() for name in long_functions(file.read_text(encoding="utf-8"))}
    assert sorted(found) == []


def test_lines_are_counted_from_def_to_the_end() -> None:
    source = "@decorator\ndef long():\n" + "    x = 1\n" * 3 + "\n\nasync def short():\n    pass\n"
    assert list(long_functions(source, most_lines=3)) == ["long"]
    assert list(long_functions(source, most_lines=4)) == []


# Modules that may name members of a table beside the table's own package, and why.
NAMING = {
    # What earlier versions wrote is read by its names.
    ("nas_edge/runs/migration.py", "reinforce"),
    # How much a limit binds, which is none of the rewards.
    ("nas_edge/config.py", "hard"),
    ("nas_edge/scaling/study.py", "hard"),
    ("nas_edge/stages/delivering.py", "hard"),
    ("nas_edge/stages/selecting.py", "hard"),
    # The state of a phone in adb's own list, which is no latency source.
    ("device_agents/android/listing.py", "device"),
}


def table_members() -> dict[str, tuple[str, ...]]:
    """Where each member of a table is at home, by its name."""
    tables: dict[str, Collection[str]] = {
        "nas_edge/search": METHODS.entries,
        "nas_edge/controllers": CONTROLLERS.entries,
        "nas_edge/latency": LATENCY_SOURCES.entries,
        "nas_edge/quality": QUALITY_SOURCES.entries,
        "nas_edge/tasks": TASKS.entries,
        "nas_edge/training": [*TRAINING_METHODS.entries, *OPTIMIZERS],
        "nas_edge/spaces": SPACES.entries,
        "nas_edge/joint": [name for name in JOINTS.entries if name != "none"],
        "nas_edge/rewards": REWARDS,
        "nas_edge/resources": RESOURCES,
    }
    members: dict[str, tuple[str, ...]] = {}
    for home, names in tables.items():
        for name in names:
            members[name] = (*members.get(name, ()), home)
    for family in FAMILIES:
        for scheme in family:
            home = inspect.getmodule(family[0].open)
            assert home is not None
            members[scheme.name] = (home.__name__.replace(".", "/").removesuffix("/scheme"),)
    return members


def texts(node: ast.AST) -> Iterator[str]:
    """The string constants in an expression."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            yield inner.value


def compared(source: str) -> Iterator[str]:
    """The texts that something is compared with, by `==`, `in (...)`, `match` or as a `Literal`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            for one, operator, other in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
                # `"device" in record` asks for the key of a record.
                if not isinstance(operator, (ast.In, ast.NotIn)) or isinstance(other, (ast.Tuple, ast.List, ast.Set)):
                    yield from texts(one)
                    yield from texts(other)
        elif isinstance(node, ast.MatchValue):
            yield from texts(node.value)
        elif isinstance(node, ast.Subscript) and "Literal" in ast.unparse(node.value):
            yield from texts(node.slice)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "startswith":
            yield from (text for argument in node.args for text in texts(argument))


def test_members_of_a_table_are_named_at_home_only() -> None:
    members = table_members()
    found = set()
    for file, name in sources():
        for text in compared(file.read_text(encoding="utf-8")):
            homes = members.get(text.rstrip(":"))
            if homes is not None and not name.startswith(homes):
                found.add((name, text))
    assert sorted(found - NAMING) == [], "ask the member's settings, or an attribute of it, instead of its name"
    assert sorted(NAMING - found) == [], "no longer named; take them off the list"


@pytest.mark.parametrize(
    "source",
    [
        'if method == "one-shot": pass',
        'if method in ("x", "one-shot"): pass',
        'match method:\n    case "x" | "one-shot": pass',
        'method: Literal["one-shot", "x"]',
        'method: typing.Literal["one-shot"]',
        'if name.startswith("one-shot"): pass',
    ],
)
def test_naming_is_found(source: str) -> None:
    assert "one-shot" in set(compared(source))


@pytest.mark.parametrize("source", ['"device" in record', 'record["device"]', 'x = "one-shot"', '{"device": 1}'])
def test_keys_and_values_are_not_taken_for_it(source: str) -> None:
    assert not {"one-shot", "device"} & set(compared(source))


def test_the_order_of_stages_is_short() -> None:
    assert len((ROOT / "nas_edge" / "pipeline.py").read_text(encoding="utf-8").splitlines()) < 300


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_has_its_layer(package: str) -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    (layers,) = (
        settings[section]
        for section in settings.sections()
        if section.startswith("importlinter:contract") and settings[section].get("containers", "").strip() == package
    )
    assert layers.getboolean("exhaustive")
    named = {room for line in layers["layers"].split("\n") for room in line.replace("|", " ").split()}
    folder = ROOT / package
    rooms = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    assert named == rooms - {"__init__", "__main__"}


def cycles(graph: Mapping[str, Collection[str]]) -> list[list[str]]:
    """Groups of modules that import each other, however far around (Tarjan's strongly connected components)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        stack.append(module)
        for imported in graph.get(module, ()):
            if imported not in order:
                visit(imported)
                lowest[module] = min(lowest[module], lowest[imported])
            elif imported in stack:
                lowest[module] = min(lowest[module], order[imported])
        if lowest[module] == order[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in graph:
        if module not in order:
            visit(module)
    return found


def test_no_module_imports_itself_around_a_corner() -> None:
    """Counting imports inside of functions too, but not those for types only."""
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)
    assert cycles({module: graph.find_modules_directly_imported_by(module) for module in graph.modules}) == []


def test_cycles_are_found() -> None:
    assert cycles({"a": ["b", "d"], "b": ["c"], "c": ["a"], "d": ["e"]}) == [["a", "b", "c"]]
    assert cycles({"a": ["b"], "b": ["c"], "c": []}) == []


def test_the_readme_names_every_table_with_its_suite_and_page() -> None:
    rows = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| a ")]
    plugins = [table.plugins for table in (METHODS, CONTROLLERS, LATENCY_SOURCES, QUALITY_SOURCES, TASKS, SPACES)]
    plugins += [TRAINING_METHODS.plugins, JOINTS.plugins, PLUGINS]
    for group in (one.group for one in plugins):
        assert any(f"`{group}`" in row for row in rows), group
    suites = {suite for row in rows for suite in re.findall("`(check_[a-z_]+)`", row)}
    assert suites == set(testing.__all__)
    pages = {page for row in rows for page in re.findall(r"docs/(own-[a-z-]+\.md)", row)}
    assert pages == {page.name for page in (ROOT / "docs").glob("own-*.md")}

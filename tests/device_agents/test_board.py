"""What runs on a board runs on its Python: 3.7, with the standard library, NumPy and a TFLite runtime, nothing else."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import numpy as np
import pytest

import device_agents.worker
from device_agents.api import PRESETS, BenchmarkSpec
from device_agents.results import read_device_info
from device_agents.worker.runtime import RUNTIMES
from device_agents.worker_agent import WorkerAgent
from device_agents.worker_process import ProcessChannel
from tests.support import models
from tests.support.requirements import board_python

FOLDER = Path(device_agents.worker.__file__).parent
FILES = sorted(FOLDER.glob("*.py"))
# Came to `str` and `bytes` with Python 3.9, where vermin cannot tell what they are called on.
LATER_METHODS = {"removeprefix", "removesuffix"}
# Of `collections.abc`, these cannot be subscripted before Python 3.9; `typing` has them.
LATER_GENERICS = {"Callable", "Iterable", "Iterator", "Mapping", "Sequence", "dict", "list", "set", "tuple", "type"}


def imported(tree: ast.Module) -> set[str]:
    """The packages that a module imports, those inside of functions too; relative imports stay in the folder."""
    names = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    names |= {
        str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0
    }  # of `from . import x` it is None, with level 1
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_worker_imports_the_standard_library_and_numpy_only(file: Path) -> None:
    allowed = {*sys.stdlib_module_names, "numpy", *(module for module, _ in RUNTIMES)}
    assert imported(ast.parse(file.read_text())) <= allowed


def test_the_worker_loads_nothing_of_the_host(tmp_path: Path) -> None:
    relative = [
        node
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level > 1
    ]
    assert relative == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_worker_is_written_for_python_3_7(file: Path) -> None:
    tree = ast.parse(file.read_text(), feature_version=(3, 7))
    assert "annotations" in {
        name.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == "__future__"
        for name in node.names
    } or not any(isinstance(node, ast.FunctionDef) for node in tree.body)
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not used & LATER_METHODS
    typing = {
        name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "typing"
        for name in node.names
    }
    for statement in tree.body:
        if isinstance(statement, ast.Assign):  # evaluated, unlike annotations
            subscripted = {
                node.value.id
                for node in ast.walk(statement)
                if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name)
            }
            assert not (subscripted & LATER_GENERICS) - typing


@pytest.mark.needs("board_python")
def test_an_old_python_measures_and_runs_models(spec: BenchmarkSpec) -> None:
    board = WorkerAgent(
        lambda: ProcessChannel([board_python(), "-m", "worker"], FOLDER.parent),
        lambda hello: read_device_info(hello, "board:", "board"),
    )
    with board as agent:
        assert agent.info().runtime in {module for module, _ in RUNTIMES}
        assert len(agent.measure(models.conv_model(), spec).samples_ms) >= spec.min_runs
        assert not agent.measure(b"TFL3" * 100, PRESETS["search"]).ok
        a, b = np.float32([[1, 2, 3, 4]]), np.float32([[10, 20, 30, 40]])
        (out,) = agent.run(models.binary_model(), [a, b])
        np.testing.assert_array_equal(out, a + b)

"""Mutants of a Python module: copies of it with one small mistake each, made by mutmut's operators.

A mistake is `<` for `<=`, `+` for `-`, a number one larger, an argument left out or None, `and` for `or` and others of
the kind, see `mutmut.mutation.mutators`. Left alone is what tests of behaviour need not notice: messages (strings, and
what is raised, passed on or kept of them), annotations, decorators and imports.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators

_LEFT_ALONE = (cst.BaseString, cst.Raise, cst.Annotation, cst.Decorator, cst.Import, cst.ImportFrom)
# Their mutants raise a TypeError wherever they are run; mutmut leaves them out, too.
_CALLS_LEFT_ALONE = {"len", "isinstance"}
_LONGEST_SHOWN = 80


@dataclass(frozen=True)
class Mutant:
    """A module with one mistake.

    Attributes:
        path: Of the module.
        line: Where the mistake is, from 1.
        operator: What made it, by mutmut's name for it.
        before: The code that is replaced.
        after: What replaces it.
        identity: The same for the same mistake in the same function, wherever in the module that stands.
    """

    path: str
    line: int
    operator: str
    before: str
    after: str
    identity: str
    module: cst.Module
    node: cst.CSTNode
    mutated: cst.CSTNode

    def source(self) -> str:
        """Returns the whole module with the mistake."""
        mutated = self.module.deep_replace(self.node, self.mutated)
        assert isinstance(mutated, cst.Module)
        return mutated.code

    def __str__(self) -> str:
        """Where it is and what changed, in one line."""
        return f"{self.path}:{self.line}: {_one_line(self.before)}  ->  {_one_line(self.after)}"


def mutants_of(path: str) -> list[Mutant]:
    """Returns all mutants of the module in a file, in the order of its code."""
    wrapper = MetadataWrapper(cst.parse_module(Path(path).read_text(encoding="utf-8")))
    finder = _Finder(path, wrapper.module)
    wrapper.visit(finder)
    return list({mutant.identity: mutant for mutant in finder.found}.values())


class _Finder(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, path: str, module: cst.Module) -> None:
        super().__init__()
        self.found: list[Mutant] = []
        self._path, self._module = path, module
        self._line = 1
        self._names: list[str] = []
        # Functions, and statements outside of them: what else changes in the module makes no other mutants of these.
        self._units: list[cst.CSTNode] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, _LEFT_ALONE) or _is_message(node) or _is_left_alone(node):
            return False
        position = self.get_metadata(PositionProvider, node, None)
        self._line = position.start.line if position else self._line
        if isinstance(node, (cst.FunctionDef, cst.ClassDef)):
            self._names.append(node.name.value)
        if _is_unit(node):
            self._units.append(node)
        for kind, operator in mutation_operators:
            if isinstance(node, kind):
                for mutated in operator(node):
                    if not _changes_message(node, mutated):
                        self._add(operator.__name__.removeprefix("operator_"), node, mutated)
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if isinstance(original_node, (cst.FunctionDef, cst.ClassDef)):
            self._names.pop()
        if self._units and self._units[-1] is original_node:
            self._units.pop()

    def _add(self, operator: str, node: cst.CSTNode, mutated: cst.CSTNode) -> None:
        unit = self._units[-1] if self._units else node
        position = self.get_metadata(PositionProvider, unit)
        code = self._module.code_for_node
        before, after = code(node), code(mutated)
        made_of = (self._path, self._names, code(unit), self._line - position.start.line, before, after)
        identity = hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]
        found = Mutant(self._path, self._line, operator, before, after, identity, self._module, node, mutated)
        self.found.append(found)


def _is_unit(node: cst.CSTNode) -> bool:
    return isinstance(node, (cst.FunctionDef, cst.SimpleStatementLine, cst.BaseCompoundStatement)) and not isinstance(
        node, cst.ClassDef
    )


def _is_left_alone(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value in _CALLS_LEFT_ALONE


def _is_message(node: cst.CSTNode) -> bool:
    """Whether an expression is a text: a string, or made of strings."""
    if isinstance(node, cst.BaseString):
        return True
    if isinstance(node, (cst.BinaryOperation, cst.BooleanOperation)):
        return _is_message(node.left) or _is_message(node.right)
    if isinstance(node, cst.IfExp):
        return _is_message(node.body) or _is_message(node.orelse)
    if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute):  # ", ".join(...)
        return _is_message(node.func.value)
    return False


def _changes_message(node: cst.CSTNode, mutated: cst.CSTNode) -> bool:
    """Whether the mistake is to change, drop or replace a text."""
    if isinstance(node, (cst.Assign, cst.AnnAssign, cst.AugAssign)):
        return node.value is not None and _is_message(node.value)
    if isinstance(node, cst.Call) and isinstance(mutated, cst.Call):
        kept = {id(argument) for argument in mutated.args}
        return any(_is_message(argument.value) for argument in node.args if id(argument) not in kept)
    return False


def _one_line(code: str) -> str:
    line = " ".join(code.split())
    return line if len(line) <= _LONGEST_SHOWN else f"{line[:_LONGEST_SHOWN]}..."


def in_drawn_order(mutants: Iterable[Mutant], seed: int) -> list[Mutant]:
    """Returns mutants in an order drawn by lot, in which the first 40 are also the first 40 of the first 300.

    A change of the code leaves the places of the mutants of all other functions relative to each other.
    """
    return sorted(mutants, key=lambda one: hashlib.sha256(f"{seed} {one.identity}".encode()).hexdigest())

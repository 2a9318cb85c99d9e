"""What other installed packages add: found by their entry points, loaded only when named.

Both packages take additions: this one devices, `nas_edge` search spaces and latency sources. Each kind is a
`PluginGroup` beside the table of what is built in. A package that is broken costs one line, and only whoever names its
addition.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from typing import Any, TypeVar

from device_agents.wording import words_of

_T = TypeVar("_T")


@dataclass(frozen=True)
class PluginGroup:
    """One kind of addition.

    Attributes:
        group: The entry points' group, for example "nas_edge.devices".
        what: What one is called in messages, for example "search space".
        builtin: The names that are taken.
        error: Raised for whatever is wrong with a plug-in.
        own_errors: What a plug-in may raise on purpose, which is passed on as it is.
    """

    group: str
    what: str
    builtin: Collection[str] = field(repr=False)
    error: type[Exception]
    own_errors: type[Exception]

    def plugins(self) -> list[Plugin]:
        """Returns what is installed, sorted by name; nothing is loaded."""
        found: dict[tuple[str, str], Plugin] = {}
        for entry, distribution in _entries(_path()).get(self.group, ()):
            try:
                name = distribution.metadata["Name"]
                plugin = Plugin(entry.name, f"{name} {distribution.version}", self, entry)
            except Exception:  # the metadata of whatever else is installed may be damaged in any way
                continue
            found.setdefault((entry.name, name), plugin)  # the first on the path is the one that is imported
        return sorted(found.values(), key=lambda plugin: (plugin.name, plugin.package))

    def find(self, name: str) -> Plugin | None:
        """Returns the plug-in of that name; None if the name is a built-in's or nobody's.

        Raises:
            Exception: `error`, if several answer to the name: none of them may be taken for another.
        """
        offers = [plugin for plugin in self.plugins() if plugin.name == name]
        if offers and name in self.builtin:
            raise self.error(
                f"the {self.what} {name!r} is built in, but {offers[0].package} offers one of that name too; "
                "uninstall that package, or have its entry point renamed"
            )
        if len(offers) > 1:
            packages = " and ".join(plugin.package for plugin in offers)
            raise self.error(f"the {self.what} {name!r} is offered by {packages}; uninstall all but one of them")
        return offers[0] if offers else None


def _path() -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The module path, and the state of each directory on it, which changes with what is installed there."""
    states: list[tuple[str, tuple[int, ...]]] = []
    for place in sys.path:
        try:
            status = os.stat(place or ".")  # noqa: PTH116 - a pathlib.Path for each takes as long as asking
        except OSError:
            states.append((place, ()))
        else:
            states.append((place, (status.st_dev, status.st_ino, status.st_mtime_ns)))
    return tuple(states)


@lru_cache(maxsize=1)
def _entries(path: object) -> dict[str, list[tuple[metadata.EntryPoint, metadata.Distribution]]]:
    """The entry points of all that is installed on `path`, by group.

    Reading them takes some ten milliseconds, and one configuration asks a dozen times.
    """
    found: dict[str, list[tuple[metadata.EntryPoint, metadata.Distribution]]] = {}
    for distribution in metadata.distributions():
        try:
            entries = list(distribution.entry_points)
        except Exception:  # likewise
            continue
        for entry in entries:
            found.setdefault(entry.group, []).append((entry, distribution))
    return found


@dataclass(frozen=True)
class Plugin:
    """An addition that is installed.

    Attributes:
        name: What users call it.
        package: Name and version of the package it comes from.
        group: What kind it is of.
    """

    name: str
    package: str
    group: PluginGroup
    _entry: metadata.EntryPoint = field(repr=False)

    @property
    def origin(self) -> str:
        """Returns where it comes from, for lists."""
        refused = "; cannot be used, since that name is built in" if self.name in self.group.builtin else ""
        return f"of the package {self.package}{refused}"

    def make(self, expected: type[_T], *arguments: Any) -> _T:
        """Loads the entry point, calls it and returns what it makes.

        Args:
            expected: The class of that.
            *arguments: Handed on.

        Raises:
            Exception: The group's `error` naming package and entry point, if it cannot be loaded, fails, or makes
                something else.
        """
        return self.call(lambda *given: self._entry.load()(*given), expected, *arguments)

    def load(self, expected: type[_T]) -> _T:
        """Loads the entry point and returns the object it names.

        Args:
            expected: The class of that.

        Raises:
            Exception: As for `make`.
        """
        return self.call(self._entry.load, expected)

    def call(self, function: Callable[..., Any], expected: type[_T], *arguments: Any) -> _T:
        """Calls a function of the plug-in and returns what it makes; arguments and errors are those of `make`."""
        try:
            made = function(*arguments)
        except self.group.own_errors:
            raise
        except (Exception, SystemExit) as error:
            raise self._broken(f"{words_of(error)}; run again with --debug for the traceback") from error
        return self.checked(made, expected)

    def checked(self, made: Any, expected: type[_T]) -> _T:
        """Returns what the plug-in made, if it is of the expected class.

        Raises:
            Exception: The group's `error`, if it is not.
        """
        if not isinstance(made, expected):
            raise self._broken(f"expected a {expected.__name__}, received {type(made).__name__}")
        return made

    def _broken(self, reason: str) -> Exception:
        where = f"{self.package} (entry point {self._entry.name} = {self._entry.value} of {self.group.group})"
        return self.group.error(f"the {self.group.what} {self.name!r} of {where} is broken: {reason}")

"""What the shell offers at TAB; the mechanism is click's.

    eval "$(nas-edge completion bash)"      for this session; in ~/.bashrc for all

Each function here is told what has been typed of a value and returns how it may go on. At TAB an error message would
tear the line that is being typed, so what cannot be found out is not offered.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import wraps
from itertools import islice
from pathlib import Path

from click import Context, Parameter
from click.shell_completion import BashComplete, CompletionItem, add_completion_class, split_arg_string

Complete = Callable[[Context, Parameter, str], "list[CompletionItem[str]]"]

# A folder of thousands of files is not looked through while the user waits.
_MOST_ENTRIES = 500


def _completes(values: Callable[[str], Sequence[str | CompletionItem[str]]]) -> Complete:
    """Makes a completion of a function that returns values, of which those that go on as typed are kept."""

    @wraps(values)
    def complete(context: Context, parameter: Parameter, typed: str) -> list[CompletionItem[str]]:
        try:
            found = [CompletionItem(value) if isinstance(value, str) else value for value in values(typed)]
        except Exception:
            return []
        return [item for item in found if item.type != "plain" or item.value.startswith(typed)]

    return complete


@_completes
def spaces(typed: str) -> list[str]:
    """Names of search spaces."""
    from nas_edge.spaces import SPACES

    return list(SPACES.names)


@_completes
def tasks(typed: str) -> list[str]:
    """Names of tasks."""
    from nas_edge.tasks import TASKS

    return list(TASKS.names)


@_completes
def hardware(typed: str) -> list[str]:
    """Names of hardware profiles."""
    from nas_edge.hardware import HARDWARE

    return list(HARDWARE)


@_completes
def methods(typed: str) -> list[str]:
    """Names of search methods."""
    from nas_edge.search.methods import METHODS

    return list(METHODS.names)


@_completes
def joints(typed: str) -> list[str]:
    """What may be searched along with a network."""
    from nas_edge.joint import JOINTS

    return list(JOINTS.names)


@_completes
def controllers(typed: str) -> list[str]:
    """Names of controllers."""
    from nas_edge.controllers import CONTROLLERS

    return list(CONTROLLERS.names)


@_completes
def devices(typed: str) -> list[str] | list[CompletionItem[str]]:
    """Device addresses: those that their scheme knows without asking a device anything; of others how they begin."""
    from device_agents.devices import completions
    from device_agents.schemes import find_scheme

    name, colon, _ = typed.partition(":")
    if colon and find_scheme(name).rest_is_file:
        return [CompletionItem(typed, "file")]
    return completions(typed)


@_completes
def latency_sources(typed: str) -> list[str] | list[CompletionItem[str]]:
    """Where latencies of candidates come from."""
    from nas_edge.latency import LATENCY_SOURCES

    if ":" in typed:
        return [CompletionItem(typed, "file")]
    alone = {name for name, entry in LATENCY_SOURCES.entries.items() if not entry.settings.requires_text()}
    return [name if name in alone else f"{name}:" for name in LATENCY_SOURCES.names]


@_completes
def table_formats(typed: str) -> list[str]:
    """Names of public formats of latency tables."""
    from nas_edge.latency.formats import FORMATS

    return list(FORMATS)


@_completes
def data(typed: str) -> list[str] | list[CompletionItem[str]]:
    """Names of built-in data, else files."""
    return [name for name in ("digits", "procedural", "tfrecord:", "tfds:") if name.startswith(typed)] or [
        CompletionItem(typed, "file")
    ]


@_completes
def settings(typed: str) -> list[str]:
    """Settings by their path."""
    from nas_edge.config import setting_names

    return [f"{name}=" for name in setting_names()]


@_completes
def runs(typed: str) -> list[str | CompletionItem[str]]:
    """Run folders, here or one level below; where there are none, folders."""
    prefix = typed[: typed.rfind(os.sep) + 1]
    found: list[str | CompletionItem[str]] = []
    for below in _folders(Path(prefix)):
        if _is_run(below):
            found.append(f"{prefix}{below.name}")
        else:
            found += [f"{prefix}{below.name}{os.sep}{run.name}" for run in _folders(below) if _is_run(run)]
    return found or [CompletionItem(typed, "dir")]


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in islice(folder.iterdir(), _MOST_ENTRIES) if path.is_dir())


def _is_run(folder: Path) -> bool:
    return (folder / "config.json").is_file()


@add_completion_class
class BashWithColons(BashComplete):
    """Completion for a shell that takes a colon for the end of a word; device addresses have them.

    So it is handed the line rather than its words, and what it is offered is only what follows the last colon, since it
    replaces no more. After a colon or an equals sign more is to be typed, so no space is added there.
    """

    name = "bash"
    source_template = BashComplete.source_template.replace(
        'COMP_WORDS="${COMP_WORDS[*]}"', 'COMP_WORDS="${COMP_LINE:0:$COMP_POINT}"'
    ).replace("COMPREPLY+=($value)", "COMPREPLY+=($value)\n            [[ $value == *[:=] ]] && compopt -o nospace")

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is being typed, and what there is of that."""
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)
        if not words or line[-1].isspace():
            words.append("")
        return words[1:-1], words[-1]

    def format_completion(self, item: CompletionItem[str]) -> str:
        """A line for the script."""
        _, typed = self.get_completion_args()
        value = typed.partition("=")[2] if typed.startswith("--") else typed
        kept = value.rpartition(":")[0] + ":" if ":" in value else ""
        return f"{item.type},{item.value.removeprefix(kept)}"

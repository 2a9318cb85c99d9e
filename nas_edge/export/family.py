"""A family: the bundles of a search for several targets in one folder, for apps on devices of several speeds.

    small/ medium/ large/   a bundle each, complete in itself
    family.json             what each takes and how good it is
    index.html              the same, for people
    SHA256SUMS              of these two, and of the `SHA256SUMS` of each bundle

It is written to a temporary folder beside its final place and renamed, so it is either complete or absent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas_edge.errors import ExportError
from nas_edge.export.bundle import SUMS, Bundle, read_part, sums_of, verify_bundle
from nas_edge.formatting import reason

SCHEMA_VERSION = 1
INDEX, PAGE = "family.json", "index.html"

_NAMES = {2: ("small", "large"), 3: ("small", "medium", "large")}


@dataclass(frozen=True)
class Family:
    """A family read from disk.

    Attributes:
        folder: its path.
        index: the parsed `family.json`.
        bundles: by name.
    """

    folder: Path
    index: Mapping[str, Any]
    bundles: Mapping[str, Bundle]


def member_names(targets_ms: Sequence[float]) -> list[str]:
    """What the networks for so many targets, ascending, are called: by size, or where there are more, by target."""
    return list(_NAMES.get(len(targets_ms), [f"{target_ms:g}ms" for target_ms in targets_ms]))


def finish_family(folder: Path, index: Mapping[str, Any], page: str) -> None:
    """Writes what stands beside the bundles.

    Args:
        folder: with the bundles.
        index: its `members` have a `name` each, that of a bundle's folder; JSON values.
        page: what people see, HTML.
    """
    content = {"schema_version": SCHEMA_VERSION, **index}
    files = {INDEX: f"{json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)}\n".encode()}
    files[PAGE] = page.encode()
    for name, written in files.items():
        (folder / name).write_bytes(written)
    bundles = {f"{member['name']}/{SUMS}": (folder / member["name"] / SUMS).read_bytes() for member in index["members"]}
    (folder / SUMS).write_bytes(sums_of({**files, **bundles}))


def is_family(folder: Path) -> bool:
    """Whether a folder is one of several bundles."""
    return (folder / INDEX).exists()


def verify_family(folder: Path) -> Family:
    """Reads a family, and checks every file of it against its hash.

    Raises:
        RunError: when it cannot be read.
        ExportError: when a file is missing, damaged or was changed.
    """
    files = {name: read_part(folder / name) for name in (INDEX, PAGE)}
    try:
        index = json.loads(files[INDEX])
        version, names = index["schema_version"], [str(member["name"]) for member in index["members"]]
        if version != SCHEMA_VERSION:
            raise ValueError(f"expected schema {SCHEMA_VERSION}, received {version!r:.50}")
        if not names or any(Path(name).name != name or name == ".." for name in names):
            raise ValueError("expected the names of the bundles' folders under `members`")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ExportError(f"{folder / INDEX} is damaged: {reason(error)}") from None
    bundles = {name: verify_bundle(folder / name) for name in names}
    sums = sums_of({**files, **{f"{name}/{SUMS}": read_part(folder / name / SUMS) for name in names}})
    if read_part(folder / SUMS) != sums:
        raise ExportError(f"{folder / INDEX}, {PAGE} or {SUMS} was changed: they do not match")
    return Family(folder, index, bundles)

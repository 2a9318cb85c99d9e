"""What the settings of any entry of a table promise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas_edge.registry import Entry
from nas_edge.settings import ChoiceSettings
from nas_edge.testing.expect import expect
from nas_edge.testing.problems import through_json


def check_settings(entry: Entry[Any], key: str, given: Mapping[str, Any], base: type = ChoiceSettings) -> Any:
    """Checks the settings of an entry.

    Args:
        entry: the line of the table.
        key: the setting that holds the name.
        given: settings other than the defaults.
        base: what the settings of this table have in common.

    Returns:
        The settings.

    Raises:
        AssertionError: naming the promise that is broken.
    """
    expect(
        isinstance(entry.settings, type) and issubclass(entry.settings, base),
        f"the settings must be a subclass of {base.__name__}, are {entry.settings}",
    )
    chosen = entry.settings(**given)
    expect(isinstance(getattr(chosen, key, None), str), f"the settings have no field `{key}` with a default")
    copy = entry.settings.model_validate(through_json(chosen.model_dump(mode="json")))
    expect(copy == chosen, f"the settings do not survive JSON: {chosen!r} became {copy!r}")
    try:
        entry.settings(**{**given, "no such setting": 1})
    except ValueError:
        return chosen
    raise AssertionError("a setting that does not exist was accepted")

"""Settings of runs that earlier versions wrote, as this one has them.

schema 1    as schema 2, with fewer settings: the others have the values that were meant then
schema 2    `search.controller` was a name, and its settings stood beside it
schema 3    a group of settings for each part that can be chosen

Of any of these, one without `device.timing_inputs` was measured on random values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What schema 2 kept in `search`, of the controller `reinforce`.
_OF_REINFORCE = ("learning_rate", "baseline_momentum", "entropy_weight", "temperature")


def migrated(content: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a `config.json` of any version.

    Args:
        content: of the file; it may come from anywhere.
    """
    settings = {name: value for name, value in content.items() if name != "schema_version"}
    search = settings.get("search")
    if content.get("schema_version") in (1, 2) and isinstance(search, Mapping):
        kept = {name: value for name, value in search.items() if name not in _OF_REINFORCE}
        name = search.get("controller", "reinforce")
        own = {key: search[key] for key in _OF_REINFORCE if key in search} if name == "reinforce" else {}
        settings["search"] = {**kept, "controller": {"name": name, **own}}
    device = settings.get("device")
    if isinstance(device, Mapping):
        settings["device"] = {"timing_inputs": 0, **device}
    return settings

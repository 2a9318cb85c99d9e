"""What a run was made with: one manifest per session, that is, per start and resumption."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from nas_edge import __version__

_PACKAGES = ("tensorflow", "keras", "ai-edge-litert", "numpy", "pillow", "scikit-learn")


def environment(
    device: Mapping[str, Any], measured_with: Mapping[str, str], measuring: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The manifest of a session that starts now.

    Args:
        device: what the latencies are measured on.
        measured_with: what else than the network decides about its latencies: the device's
            `latency.cache.MeasuringKey`, and `latency_source`, that source's name, where candidates are
            not timed there.
        measuring: with which effort, which may change from session to session: settings by stage.
    """
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "nas_edge": __version__,
        "git": _git_state(Path(__file__).parents[2]),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "device": dict(device),
        "measured_with": dict(measured_with),
        "measuring": dict(measuring or {}),
    }


def measured_with(session: Mapping[str, Any]) -> dict[str, Any]:
    """What `environment` was given, also of an earlier manifest; of one that does not tell, nothing.

    Earlier ones had the judge's name in the device's place, and empty texts for runtime and settings. Of these, the
    settings are not known and left out; so are those of others without `measuring`, which include the effort.
    """
    found, device = session.get("measured_with"), session.get("device")
    if not isinstance(found, dict):
        return {}
    if found.get("runtime") == found.get("settings") == "" and isinstance(device, dict):
        return {
            "precision": found.get("precision"),
            "device": device.get("fingerprint"),
            "runtime": f"{device.get('runtime')} {device.get('runtime_version')}",
            "latency_source": found.get("device"),
        }
    return {
        "latency_source" if what == "judge" else what: value
        for what, value in found.items()
        if what != "settings" or "measuring" in session
    }


def changed_packages(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two manifests and may change results in their last bits."""
    pairs = {"nas_edge": (before["nas_edge"], now["nas_edge"])}
    pairs |= {name: (before["packages"].get(name), version) for name, version in now["packages"].items()}
    return [f"{name} {was} is now {is_now}" for name, (was, is_now) in pairs.items() if was != is_now]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and whether files differ from it; None when the code is not run from a checkout."""
    if not (folder / ".git").exists():
        return None
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "changed": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):  # git is not there, or refuses another user's folder
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.strip()

"""What a run was made with: one manifest per session, that is, per start and resumption."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from nas_edge import __version__

_PACKAGES = ("tensorflow", "keras", "ai-edge-litert", "numpy", "pillow", "scikit-learn")


def environment(
    device: Mapping[str, Any],
    measured_with: Mapping[str, str],
    data: Mapping[str, Any] | None = None,
    measuring: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The manifest of a session that starts now.

    Args:
        device: what the latencies are measured on.
        measured_with: what else than the network decides about its latencies: the device's
            `latency.cache.MeasuringKey`, and `latency_source`, that source's name, where candidates are
            not timed there.
        data: what tells them from others, see `data.dataset.Dataset.to_json`.
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
        "data": dict(data or {}),
        "measuring": dict(measuring or {}),
    }


def changed_images(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Which images one of two manifests skipped and the other did not; none where one does not tell."""
    was, is_now = _skipped(before), _skipped(now)
    if was is None or is_now is None:
        return []
    return [
        *(f"{image} was read and is now skipped" for image in sorted(is_now - was)),
        *(f"{image} was skipped and is now read" for image in sorted(was - is_now)),
    ]


def changed_data(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In what the data of two manifests differ, apart from what they skip; an earlier manifest may not tell."""
    was, is_now = (session.get("data") for session in (before, now))
    if not isinstance(was, dict) or not isinstance(is_now, dict) or "reading" not in is_now:
        return []
    if was.get("reading", 1) != is_now["reading"]:
        return ["the version it began with read them in another order, or split them in other parts"]
    if was.get("examples", is_now["examples"]) != is_now["examples"]:
        return [f"there were {was['examples']} examples, and there are {is_now['examples']}"]
    if was.get("targets", is_now.get("targets")) != is_now.get("targets"):
        return ["the examples have other classes, or another order"]
    return []


def _skipped(session: Mapping[str, Any]) -> set[str] | None:
    data = session.get("data")
    listed = data.get("skipped") if isinstance(data, dict) else None
    # What is wrong with an image follows its name, in words that may differ from version to version.
    return None if not isinstance(listed, list) else {str(image).partition(": ")[0] for image in listed}


def measured_with(session: Mapping[str, Any]) -> dict[str, Any]:
    """What `environment` was given, also of an earlier manifest; of one that does not tell, nothing.

    Earlier ones called the latency source `judge`; those before them had its name in the device's place, and empty
    texts for runtime and settings. Of these, the settings are not known and left out; so are those of others without
    `measuring`, which include the effort.
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


def session_of_trials(measurements: Iterable[Mapping[str, Any] | None], precision: str) -> dict[str, Any] | None:
    """A manifest of a run that has none, as far as the conditions of its first measurement tell; None without any.

    Args:
        measurements: of its trials, see `runs.columns.TrialColumns.measurement`; they may come from anywhere.
        precision: that the run measures.
    """
    for measurement in measurements:
        conditions = None if measurement is None else measurement.get("conditions")
        if isinstance(conditions, dict):
            runtime = f"{conditions.get('runtime')} {conditions.get('runtime_version')}"
            fingerprint, model = (conditions.get(name) for name in ("device_fingerprint", "device_model"))
            return {
                "started": conditions.get("started_utc"),
                "nas_edge": None,
                "packages": {},
                "device": {"model": model, "fingerprint": fingerprint},
                "measured_with": {"precision": precision, "device": fingerprint, "runtime": runtime},
            }
    return None


def changed_packages(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two manifests and may change results in their last bits."""
    if not before["packages"]:
        return []  # it does not tell
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

"""The conditions of a run: the device over time, versions, settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from device_agents.api import RANDOM_VALUES
from nas_edge.report import plots
from nas_edge.report.content import Cell, Column, ColumnSpec, Plot, Section, Table, make_table
from nas_edge.report.reading import RunFacts, TrialFacts, mapping
from nas_edge.runs.untrusted import number
from nas_edge.text import origin_text

# Over time: column, title, unit, format, and the fields of `Conditions` it is read from.
_CONDITIONS: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    ("temperature_c", "Temperature", "°C", ".1f", ("temperature_c_after", "temperature_c_before")),
    ("cpu_mhz", "Clock", "MHz", "d", ("cpu_mhz_after", "cpu_mhz_before")),
    (
        "drift",
        "Drift: latency of a small fixed model relative to its first measurement",
        "ratio",
        ".3f",
        ("anchor_ratio",),
    ),
    ("other_load_cores", "Load of other programs on the cores used", "cores", ".2f", ("other_load_cores",)),
    ("load_average", "Load average of the device", "load", ".2f", ("load_average_after", "load_average_before")),
    ("throttle_events", "Throttling events", "events", "d", ("throttle_events",)),
)


def device_section(facts: RunFacts) -> Section | None:
    """What the device reports about itself over time; None where no trial says anything of a device."""
    if not any(trial.conditions for trial in facts.trials):
        return None
    shown: list[Plot] = []
    silent: list[str] = []
    says: list[str] = []
    for column, title, unit, form, fields in _CONDITIONS:
        values = [v for v in (_condition(trial, fields) for trial in facts.trials) if v is not None]
        if not values:
            silent.append(title.partition(":")[0].lower())
        elif column == "throttle_events" and not any(values):
            says.append("The device reported no throttling.")
        else:
            shown.append(plots.over_steps(column, title, unit, form))
            if column == "drift":
                says.append(
                    f"A small fixed model, measured periodically, took between {min(values):.1%} and "
                    f"{max(values):.1%} of its first latency: this is how much the speed of the device itself changed."
                )
            elif column == "temperature_c":
                says.append(f"Its temperature was between {min(values):.0f} and {max(values):.0f} °C.")
    if silent:
        says.append(f"Not reported by this device: {', '.join(silent)}.")
    return Section("device", "Device conditions during the search", tuple(says), tuple(shown))


def _condition(trial: TrialFacts, fields: Sequence[str]) -> float | None:
    for name in fields:
        value = trial.conditions.get(name)
        with suppress(ValueError):
            return number(value)
    return None


def condition_columns(facts: RunFacts) -> list[Column]:
    """Device conditions at each trial, for the table of trials."""
    return [
        Column(column, "", form, [_condition(trial, fields) for trial in facts.trials], shown=False)
        for column, _, _, form, fields in _CONDITIONS
    ]


def conditions_section(facts: RunFacts) -> Section:
    """The conditions under which latencies and qualities are what they are."""
    rows: list[tuple[Cell, ...]] = []
    device = mapping(facts.sessions[-1].get("device")) if facts.sessions else {}
    memory = device.get("memory_bytes")
    measured = next((trial.conditions for trial in reversed(facts.trials) if trial.conditions), {})
    cores = measured.get("cores")
    config, of_device = facts.config, facts.has_device
    for what, value in (
        ("device", device.get("model")),
        ("addresses", ", ".join(config.device.addresses) if of_device else None),
        ("system on chip", device.get("soc")),
        ("operating system", device.get("os")),
        ("cores of the device", device.get("cores")),
        ("memory", f"{memory / 2**30:.1f} GiB" if isinstance(memory, int) else None),
        ("device fingerprint", device.get("fingerprint")),
        ("runtime", f"{device.get('runtime')} {device.get('runtime_version')}" if device else None),
        ("delegate", measured.get("delegate")),
        ("threads", config.device.threads if of_device else None),
        ("cores measured on", ", ".join(map(str, cores)) if isinstance(cores, list) else None),
        ("governor", measured.get("governor")),
        ("timed on", _timed_on(measured.get("inputs"))),
        ("precision measured", config.export.precision if of_device else None),
        ("measured on this machine", device.get("measures_on_host")),
        ("latencies of trials", _latencies(facts)),
        ("qualities of trials", facts.quality_name),
        ("seed", config.seed),
        ("data", config.data.source if of_device else None),
        ("space", config.space.name),
    ):
        if value is not None or of_device:
            rows.append((what, value if isinstance(value, (bool, type(None))) else str(value)))
    table = make_table("conditions", "", [("what", "what", ""), ("value", "value", "")], rows)
    others = "devices, runtimes, versions, thread counts or settings" if of_device else "sources"
    says = (f"These latencies cannot be compared with those of other {others}.",)
    return Section("conditions", "Conditions", says, tables=(table, _sessions_table(facts)))


def _timed_on(inputs: object) -> str | None:
    """What networks are run on, of `Conditions.inputs`."""
    if inputs is None:
        return None
    return str(inputs) if inputs == RANDOM_VALUES else f"validation examples {inputs}"


def _latencies(facts: RunFacts) -> str | None:
    """How the latencies of trials are known, and from what."""
    if facts.latency_source is None:
        return facts.kinds_text or None
    return " or ".join(origin_text(kind, facts.latency_source) for kind in facts.kinds) or facts.latency_source


def _sessions_table(facts: RunFacts) -> Table:
    rows = []
    for session in facts.sessions:
        git = mapping(session.get("git"))
        commit = f"{str(git.get('commit'))[:10]}{' with local changes' if git.get('changed') else ''}" if git else None
        packages = mapping(session.get("packages"))
        versions = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
        rows.append(
            (
                _text(session.get("started")),
                _text(session.get("nas_edge")),
                commit,
                _text(session.get("python")),
                versions,
                _text(session.get("platform")),
            )
        )
    columns: list[ColumnSpec] = [
        ("started", "started (UTC)", ""),
        ("nas_edge", "nas_edge", ""),
        ("commit", "commit", ""),
        ("python", "Python", ""),
        ("packages", "packages", ""),
        ("platform", "host", ""),
    ]
    return make_table("sessions", "Sessions", columns, rows)


def settings_section(facts: RunFacts) -> Section:
    """Every setting."""
    rows = sorted(flat(facts.config.model_dump(mode="json")).items())
    table = make_table("settings", "", [("setting", "setting", ""), ("value", "value", "")], rows, brief=False)
    return Section("settings", "Settings", tables=(table,), folded=True)


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings as text, by dotted path."""
    found: dict[str, str] = {}
    for name, value in settings.items():
        nested = isinstance(value, Mapping)
        found |= flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": str(value)}
    return found


def _text(value: object) -> str | None:
    return None if value is None else str(value)

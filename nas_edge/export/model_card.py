"""The `MODEL_CARD.md` of a bundle: what the model is for, what it was made of, how good it is, what was not tested.

Source of the form: Mitchell et al., 2019 (arXiv:1810.03993).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas_edge.export.inputs import INPUTS, InputKind
from nas_edge.formatting import ms_text, with_interval
from nas_edge.tasks.base import BundleSection, Metric
from nas_edge.text import recorded_latency_ms

# Classes, labels and so on that are named.
_NAMED = 10


def model_card(manifest: Mapping[str, Any], precision: str, section: BundleSection, metric: Metric) -> str:
    """Its text.

    Args:
        manifest: of the bundle.
        precision: of the model that is delivered.
        section: what there is to say of the task.
        metric: what quality is.
    """
    model, details = manifest["models"][precision], manifest["details"]
    kind = INPUTS[manifest["preprocessing"]["kind"]]
    lines = [
        f"# Model card: {section.title}",
        "",
        "## Model",
        "",
        f"- `{model['file']}`: {precision}, {model['size_bytes']} bytes; it {section.says}.",
        f"- Architecture `{manifest['architecture']}` of the space `{manifest['space']}`; written "
        f"{manifest['created']} by nas_edge {manifest['versions']['nas-edge']}.",
        f"- Licence: {details.get('license') or 'not stated; ask who delivers it'}.",
        "",
        "## Data",
        "",
        *_data(details, kind),
        "",
        f"## {metric.name[:1].upper()}{metric.name[1:]}",
        "",
        *_qualities(manifest, details, metric, kind),
        *_breakdown(model, metric, kind),
        "",
        "## Latency",
        "",
        *_latencies(manifest, details),
        "",
        "## Not tested",
        "",
        f"- {kind.examples.capitalize()} of another source than the test {kind.examples}': {kind.other_source}.",
        "- Devices, runtimes and settings other than those named under latency.",
        "- Whether it treats groups of people alike.",
        "",
    ]
    return "\n".join(lines)


def _data(details: Mapping[str, Any], kind: InputKind) -> list[str]:
    lines = [f"- Source: `{details.get('data', 'not recorded')}`."]
    if "training_images" in details:
        lines.append(
            f"- {details['training_images']} {kind.examples} to train with, {details['test_images']} to test with."
        )
    if "test_set" in details:
        lines.append(f"- The test {kind.examples}' fingerprint is `{details['test_set']}`.")
    quantized = details.get("quantization")
    if quantized:
        lines.append(f"- Quantisation: {quantized['method']}; `details.representative` in the manifest says on what.")
    return lines


def _qualities(manifest: Mapping[str, Any], details: Mapping[str, Any], metric: Metric, kind: InputKind) -> list[str]:
    of = f" of {details['test_images']} {kind.examples}" if "test_images" in details else ""
    lines = []
    for facts in manifest["models"].values():
        value = facts[metric.name]
        shown = "not tested" if value is None else with_interval(value, facts[f"{metric.name}_interval"], metric.form)
        lines.append(f"- `{facts['file']}`: {shown}{of}{', with its 95% interval' if '[' in shown else ''}")
    return lines


def _breakdown(model: Mapping[str, Any], metric: Metric, kind: InputKind) -> list[str]:
    """What the manifest's breakdown says by class, by label and so on, a table each, the lowest first."""
    lines = []
    for name, entries in model["breakdown"].items():
        if not isinstance(entries, Mapping):
            continue
        measure, *others = next(iter(entries.values()))
        tested = sorted((one[measure], entry) for entry, one in entries.items() if one[measure] is not None)
        if not tested:
            continue
        shown = tested[:_NAMED]
        begins = f"{name.capitalize()} with the lowest {measure}" if len(tested) > len(shown) else name.capitalize()
        lines += ["", f"{begins}, the lowest first:", ""]
        lines += [f"| {' | '.join([name, measure, *others])} |", f"|{'---|' * (2 + len(others))}"]
        for value, entry in shown:
            counts = [str(entries[entry][other]) for other in others]
            lines.append(f"| {' | '.join([entry.replace('|', '/'), metric.text(value), *counts])} |")
        if untested := len(entries) - len(tested):
            lines += ["", f"Without test {kind.examples}: {untested} {name}."]
    return lines


def _latencies(manifest: Mapping[str, Any], details: Mapping[str, Any]) -> list[str]:
    rows = [
        f"| {device} | {name} | {'-' if latency_ms is None else ms_text(latency_ms)} | {latency.get('verdict', '')} |"
        for device, latencies in (
            (details.get("device", "-"), {name: one["latency"] for name, one in manifest["models"].items()}),
            *((one["device"], one["latency"]) for one in details.get("further_devices", ())),
        )
        for name, latency in latencies.items()
        if latency
        for latency_ms in (recorded_latency_ms(latency),)
    ]
    if not rows:
        return ["Not measured."]
    return [
        "| device | precision | ms | verdict |",
        "|---|---|---|---|",
        *rows,
        "",
        "Latencies are quiet ones, with nothing else running; threads, runtime and conditions are in the manifest.",
    ]

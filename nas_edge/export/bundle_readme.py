"""The `README.md` of a bundle: what the model answers, how good and fast it is, how to feed it, how to check that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nas_edge.export.example_files import ANDROID, EXAMPLE, PREPROCESSING, VERIFY
from nas_edge.export.golden import FOLDER, example_name
from nas_edge.export.inputs import INPUTS, InputKind
from nas_edge.formatting import ms_text, with_interval
from nas_edge.hardware.gate import HardwareCheck
from nas_edge.tasks.base import BundleSection, Metric
from nas_edge.text import recorded_latency_ms, slower_than_float


def bundle_readme(manifest: Mapping[str, Any], precision: str, section: BundleSection, metric: Metric) -> str:
    """Its text.

    Args:
        manifest: of the bundle.
        precision: of the model that is delivered.
        section: what there is to say of the task.
        metric: what quality is.
    """
    model, kind = manifest["models"][precision], INPUTS[manifest["preprocessing"]["kind"]]
    lines = [
        f"# {manifest['space']} {section.title}, {precision}",
        "",
        f"`{model['file']}` {section.says}. `manifest.json` holds the same facts in machine-readable form.",
        "",
        *_figures(manifest, model, metric, kind),
        "",
        "## Feeding the model",
        "",
        *_rules(manifest["preprocessing"], model, section, kind),
        "",
        *_programs(model, precision, kind),
        "",
    ]
    return "\n".join(lines)


def _figures(manifest: Mapping[str, Any], model: Mapping[str, Any], metric: Metric, kind: InputKind) -> list[str]:
    details, models = manifest["details"], manifest["models"]
    slower = slower_than_float({name: recorded_latency_ms(facts["latency"]) for name, facts in models.items()})
    checked = details.get("hardware_check")
    measured_on = f"The latency was measured on {details['device']}. " if "device" in details else ""
    return [
        f"| file | bytes | test {metric.name} | latency, ms |",
        "|---|---|---|---|",
        *(_table_row(facts, details.get("test_images"), metric, kind) for facts in models.values()),
        "",
        *(
            ("In brackets: 95% intervals.", "")
            if any(one[f"{metric.name}_interval"] for one in models.values())
            else ()
        ),
        *((f"{slower[0].upper()}{slower[1:]}.", "") if slower else ()),
        f"{measured_on}The measurement conditions (runtime, threads ...) are in the manifest.",
        *([] if checked is None else ["", f"`{model['file']}` was {HardwareCheck.from_json(checked)}."]),
    ]


def _rules(rules: Mapping[str, Any], model: Mapping[str, Any], section: BundleSection, kind: InputKind) -> list[str]:
    source, result = model["input"], model["output"]
    height, width, channels = source["shape"][1:]
    steps = [
        *kind.steps(rules),
        f"`value = ({kind.value} - mean) / std` with mean {_numbers(rules['mean'])}, std {_numbers(rules['std'])}.",
    ]
    if source["scale"] is not None:
        limits = np.iinfo(source["dtype"])
        steps += [
            f"Quantise: `stored = clip(round(value / {source['scale']!r}) + ({source['zero_point']}), "
            f"{limits.min}, {limits.max})`, {source['dtype']} `[1, {height}, {width}, {channels}]`.",
            f"Run, then dequantise: `{section.output} = {result['scale']!r} * (stored - ({result['zero_point']}))`; "
            f"{section.answer}.",
        ]
    else:
        steps.append(f"Run on float32 `[1, {height}, {width}, {channels}]`; {section.answer}.")
    return [f"{number}. {step}" for number, step in enumerate(steps, 1)]


def _programs(model: Mapping[str, Any], precision: str, kind: InputKind) -> list[str]:
    return [
        "## Trying it",
        "",
        "```sh",
        f"pip install {' '.join(['numpy', *kind.packages, 'ai-edge-litert'])}",
        f"python {EXAMPLE} {example_name(0, kind.suffix)}    # or any {kind.example}",
        f"python {VERIFY}                        # everything in this folder, on this machine",
        "```",
        "",
        f"Inputs are made by `{PREPROCESSING}`. `{ANDROID}/` is a Kotlin module that preprocesses as in training, "
        "too, and runs the model with LiteRT.",
        "",
        "## Checking an integration",
        "",
        f"`{FOLDER}/` holds {kind.examples}, the preprocessed input of each (`0_input.npy`), and for each model the "
        f"output as the file stores it (`0_{precision}_xnnpack.npy`, `0_{precision}_builtin.npy`). Runtimes have two "
        "families of kernels that round differently: XNNPACK's, which are the default, and TFLite's built-in ones. "
        f"Your app should get the output of one of them to within {model['tolerance']:.3g}. A GPU or an NPU rounds in "
        "its own way: expect the same answer, and int8 outputs within about ten quantisation steps.",
    ]


def _numbers(values: Sequence[float]) -> str:
    return f"[{', '.join(repr(float(value)) for value in values)}]"


def _table_row(facts: Mapping[str, Any], tested_on: int | None, metric: Metric, kind: InputKind) -> str:
    of = "" if tested_on is None else f" of {tested_on} {kind.examples}"
    quality, interval = facts[metric.name], f"{metric.name}_interval"
    tested = "" if quality is None else f"{with_interval(quality, facts[interval], metric.form)}{of}"
    latency, latency_ms = facts["latency"] or {}, recorded_latency_ms(facts["latency"])
    shown = "" if latency_ms is None else ms_text(latency_ms)
    if latency.get("verdict", "ok") != "ok":
        shown = f"{shown} ({latency['verdict']})".strip()
    return f"| `{facts['file']}` | {facts['size_bytes']} | {tested} | {shown} |"

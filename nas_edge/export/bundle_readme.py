"""The `README.md` of a bundle: what the model answers, how good and fast it is, how to feed it, how to check that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nas_edge.export.example_files import ANDROID, EXAMPLE, VERIFY
from nas_edge.export.golden import FOLDER, image_name
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
    model = manifest["models"][precision]
    lines = [
        f"# {manifest['space']} {section.title}, {precision}",
        "",
        f"`{model['file']}` {section.says}. `manifest.json` holds the same facts in machine-readable form.",
        "",
        *_figures(manifest, model, metric),
        "",
        "## Feeding the model",
        "",
        *_rules(manifest["preprocessing"], model, section),
        "",
        *_programs(model, precision),
        "",
    ]
    return "\n".join(lines)


def _figures(manifest: Mapping[str, Any], model: Mapping[str, Any], metric: Metric) -> list[str]:
    details, models = manifest["details"], manifest["models"]
    slower = slower_than_float({name: recorded_latency_ms(facts["latency"]) for name, facts in models.items()})
    checked = details.get("hardware_check")
    measured_on = f"The latency was measured on {details['device']}. " if "device" in details else ""
    return [
        f"| file | bytes | test {metric.name} | latency, ms |",
        "|---|---|---|---|",
        *(_table_row(facts, details.get("test_images"), metric) for facts in models.values()),
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


def _rules(rules: Mapping[str, Any], model: Mapping[str, Any], section: BundleSection) -> list[str]:
    source, result = model["input"], model["output"]
    height, width, channels = source["shape"][1:]
    colours = "1 channel" if channels == 1 else f"{channels} channels"
    lines = [
        f"1. Crop to the {rules['crop']}, resize to {height} x {width} ({rules['resize']}), {colours}: "
        f"{rules['colour']}.",
        f"2. `value = (pixel - mean) / std` with pixels 0..255, mean {_numbers(rules['mean'])}, "
        f"std {_numbers(rules['std'])}.",
    ]
    if source["scale"] is not None:
        limits = np.iinfo(source["dtype"])
        lines += [
            f"3. Quantise: `stored = clip(round(value / {source['scale']!r}) + ({source['zero_point']}), "
            f"{limits.min}, {limits.max})`, {source['dtype']} `[1, {height}, {width}, {channels}]`.",
            f"4. Run, then dequantise: `{section.output} = {result['scale']!r} * (stored - ({result['zero_point']}))`; "
            f"{section.answer}.",
        ]
    else:
        lines.append(f"3. Run on float32 `[1, {height}, {width}, {channels}]`; {section.answer}.")
    return lines


def _programs(model: Mapping[str, Any], precision: str) -> list[str]:
    return [
        "## Trying it",
        "",
        "```sh",
        "pip install numpy pillow ai-edge-litert",
        f"python {EXAMPLE} {image_name(0)}    # or any image",
        f"python {VERIFY}                        # everything in this folder, on this machine",
        "```",
        "",
        f"`{ANDROID}/` is a Kotlin module that preprocesses as in training and runs the model with LiteRT.",
        "",
        "## Checking an integration",
        "",
        f"`{FOLDER}/` holds images, the preprocessed input of each (`0_input.npy`), and for each model the output as "
        f"the file stores it (`0_{precision}_xnnpack.npy`, `0_{precision}_builtin.npy`). Runtimes have two families of "
        "kernels that round differently: XNNPACK's, which are the default, and TFLite's built-in ones. Your app should "
        f"get the output of one of them to within {model['tolerance']:.3g}. A GPU or an NPU rounds in its own way: "
        "expect the same answer, and int8 outputs within about ten quantisation steps.",
    ]


def _numbers(values: Sequence[float]) -> str:
    return f"[{', '.join(repr(float(value)) for value in values)}]"


def _table_row(facts: Mapping[str, Any], test_images: int | None, metric: Metric) -> str:
    of = "" if test_images is None else f" of {test_images} images"
    quality, interval = facts[metric.name], f"{metric.name}_interval"
    tested = "" if quality is None else f"{with_interval(quality, facts[interval], metric.form)}{of}"
    latency, latency_ms = facts["latency"] or {}, recorded_latency_ms(facts["latency"])
    shown = "" if latency_ms is None else ms_text(latency_ms)
    if latency.get("verdict", "ok") != "ok":
        shown = f"{shown} ({latency['verdict']})".strip()
    return f"| `{facts['file']}` | {facts['size_bytes']} | {tested} | {shown} |"

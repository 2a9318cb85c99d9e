"""NPUs: files compiled ahead of time by ai-edge-litert and the package of the vendor, if that is installed.

A target is `VENDOR:SOC`, for example `qualcomm:SM8750`. The compiler is the vendor's, in native code, so it runs in a
process of its own; that a file was compiled says nothing of how it runs there.

Source: `ai_edge_litert.aot`, https://ai.google.dev/edge/litert/next/npu
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

_TIMEOUT_S = 1800
_MOST_SAID = 400


@dataclass(frozen=True)
class Vendor:
    """Who makes NPUs.

    Attributes:
        module: in `ai_edge_litert.aot.vendors`.
        package: what brings the vendor's compiler, on PyPI.
    """

    module: str
    package: str

    @property
    def installed(self) -> bool:
        """Whether the package is."""
        return find_spec(self.package.removesuffix("-nightly").replace("-", "_")) is not None


VENDORS: Mapping[str, Vendor] = {
    "google": Vendor("google_tensor", "ai-edge-litert-sdk-google-tensor"),
    "intel": Vendor("intel_openvino", "ai-edge-litert-sdk-intel"),
    "mediatek": Vendor("mediatek", "ai-edge-litert-sdk-mediatek"),
    "qualcomm": Vendor("qualcomm", "ai-edge-litert-sdk-qualcomm"),
    "samsung": Vendor("samsung", "ai-edge-litert-sdk-samsung-nightly"),
}


def check_target(target: str) -> str:
    """A target as it was given.

    Raises:
        ValueError: when it names no vendor, or no SoC.
    """
    vendor, separator, soc = target.partition(":")
    if vendor not in VENDORS or not separator or not soc.replace("_", "").isalnum():
        raise ValueError(f"expected VENDOR:SOC with a vendor of {', '.join(VENDORS)}; received {target!r:.60}")
    return target


@dataclass(frozen=True)
class NpuFiles:
    """What came of a file.

    Attributes:
        files: those that were compiled, by name.
        says: of each target, what came of it in a line; also why there is no file.
    """

    files: Mapping[str, bytes]
    says: Mapping[str, str]


def compile_for_npus(file: bytes, stem: str, targets: Sequence[str]) -> NpuFiles:
    """Compiles a file for each target; that this fails is no error.

    Args:
        file: TFLite, int8.
        stem: of the names of what is made.
        targets: see `check_target`.
    """
    files, says = dict[str, bytes](), dict[str, str]()
    for target in targets:
        name, _, soc = target.partition(":")
        vendor = VENDORS[name]
        if not vendor.installed:
            says[target] = f"not compiled: {vendor.package} is not installed"
            continue
        made, says[target] = _compiled(file, vendor, soc)
        if made is not None:
            files[f"{stem}_{name}_{soc}.tflite"] = made
    return NpuFiles(files, says)


def _compiled(file: bytes, vendor: Vendor, soc: str) -> tuple[bytes | None, str]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.tflite").write_bytes(file)
        command = [sys.executable, "-m", __name__, vendor.module, soc, name]
        environment = {**os.environ, "TMPDIR": name}  # what the compiler leaves goes with the folder
        try:
            ended = subprocess.run(
                command, check=False, capture_output=True, env=environment, timeout=_TIMEOUT_S, text=True
            )
        except subprocess.TimeoutExpired:
            return None, f"not compiled: it took more than {_TIMEOUT_S // 60} minutes"
        try:
            answer = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            lines = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
            return None, f"not compiled: the compiler ended with {lines[-1]:.{_MOST_SAID}}"
        if answer["made"]:
            return (folder / "made.tflite").read_bytes(), f"compiled: {answer['says']:.{_MOST_SAID}}"
        logs = [path.read_text(errors="replace").strip() for path in sorted(folder.glob("*.error"))]
        lines = [line.strip() for log in logs for line in log.splitlines()]
        errors = [line for line in lines if line.startswith("ERROR")] or [
            answer["says"].partition(" See ")[0],
            *lines[-1:],
        ]
        return None, f"not compiled: {'; '.join(errors):.{_MOST_SAID}}"


def _main(module: str, soc: str, name: str) -> None:
    """In the child: compiles, and writes what came of it."""
    from importlib import import_module

    from ai_edge_litert.aot.aot_compile import aot_compile
    from ai_edge_litert.aot.core.aot_types import Model

    folder, made, says = Path(name), False, ""
    vendor = import_module(f"ai_edge_litert.aot.vendors.{module}.target")
    if soc not in {each.value for each in vendor.SocModel}:
        says = f"unknown SoC; supported: {', '.join(each.value for each in vendor.SocModel if each.value != 'ALL')}"
    else:
        model = Model.create_from_bytes((folder / "model.tflite").read_bytes())
        found = aot_compile(model, target=vendor.Target(vendor.SocModel(soc)), keep_going=True)
        if found.models:
            (folder / "made.tflite").write_bytes(found.models[0].model_bytes)
            made, says = True, " ".join(str(found.models[0].partition_stats or "by the vendor's compiler").split())
        else:
            says = "; ".join(why for _, why in found.failed_backends) or "the compiler made nothing"
    (folder / "answer.json").write_text(json.dumps({"made": made, "says": says}), encoding="utf-8")


if __name__ == "__main__":
    _main(*sys.argv[1:])

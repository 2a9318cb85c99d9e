"""The TFLite runtime: which one is installed, and interpreters made with it."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .edgetpu import EdgeTpu
from .errors import DeviceUnavailableError

# (module, distribution), in the order in which they are tried.
RUNTIMES = (("ai_edge_litert", "ai-edge-litert"), ("tflite_runtime", "tflite-runtime"))


@dataclass(frozen=True)
class Runtime:
    """An importable TFLite runtime.

    Attributes:
        name: Module name, for example "ai_edge_litert".
        version: Version of its distribution.
        module: Its `interpreter` module.
        accelerator: What runs the models that are compiled for it; None for nothing but the CPU.
    """

    name: str
    version: str
    module: Any
    accelerator: EdgeTpu | None = None

    def interpreter(self, model: bytes, threads: int, delegate: str) -> Any:
        """Returns an interpreter; `delegate` is a key of `spec.DELEGATES`.

        A model that is compiled for the accelerator runs there.
        """
        resolvers = self.module.OpResolverType
        more = {}  # type: dict[str, Any]
        if self.accelerator is not None and self.accelerator.takes(model):
            more["experimental_delegates"] = [self.accelerator.delegate(self.module)]
            delegate = "none"
        # AUTO applies XNNPACK by itself; naming the delegate is not possible in Python.
        resolver = resolvers.AUTO if delegate == "cpu" else resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        return self.module.Interpreter(
            model_content=model, num_threads=threads, experimental_op_resolver_type=resolver, **more
        )


def find_runtime() -> tuple[str, str]:
    """Returns module name and version of the runtime that would be used, without loading it.

    Raises:
        DeviceUnavailableError: If none is installed.
    """
    for module, distribution in RUNTIMES:
        version = installed_version(distribution)
        if version is not None:
            return module, version
    raise _no_runtime()


def load_runtime(accelerator: EdgeTpu | None = None) -> Runtime:
    """Loads the first installed runtime.

    Args:
        accelerator: See `Runtime`.

    Raises:
        DeviceUnavailableError: If none is installed.
    """
    for module, distribution in RUNTIMES:
        try:
            interpreter = importlib.import_module(f"{module}.interpreter")
        except ImportError:
            continue
        return Runtime(module, installed_version(distribution) or "unknown", interpreter, accelerator)
    raise _no_runtime()


def installed_version(distribution: str) -> str | None:
    """Returns the version of an installed distribution, None if it is not installed.

    It is in the name of the folder or file that pip, or Debian, leaves beside the package; `importlib.metadata` came
    with Python 3.8 only.
    """
    name = distribution.replace("-", "_")
    for folder in map(Path, sys.path):
        for kind in ("dist-info", "egg-info"):
            for found in folder.glob(f"{name}-*.{kind}"):
                return found.name[len(name) + 1 : -len(kind) - 1].partition("-py")[0]
    return None


def _no_runtime() -> DeviceUnavailableError:
    return DeviceUnavailableError(
        "No TFLite runtime found",
        expected=f"one of {', '.join(distribution for _, distribution in RUNTIMES)}",
        fix="install it for this Python: pip install ai-edge-litert",
    )


def count_delegate_kernels(interpreter: Any) -> int | None:
    """Returns how many parts of the graph a delegate took over, None if unknown."""
    # Neither runtime has a public call for this; both have had this one for years.
    list_ops = getattr(interpreter, "_get_ops_details", None)
    if list_ops is None:
        return None
    return sum(1 for op in list_ops() if op.get("op_name") == "DELEGATE")

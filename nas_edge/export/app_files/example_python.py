"""Runs the model of this folder on a file.

    python example_python.py FILE [--model model_float32.tflite]

Requires NumPy, a TFLite runtime (`pip install ai-edge-litert`, or `pip install "numpy<2" tflite-runtime`) and what
`preprocessing.py` beside it does. All that is specific to the model is read from `manifest.json`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

import numpy as np

sys.dont_write_bytecode = True  # the folder stays as it was delivered

FOLDER = Path(__file__).resolve().parent
RUNTIMES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow.lite")


def read_manifest():
    """What is known of the models, as JSON values."""
    return json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))


def load(file):
    """An interpreter of a TFLite file, by the first runtime that is installed."""
    for name in RUNTIMES:
        try:
            runtime = importlib.import_module(name)
        except ImportError:
            continue
        interpreter = runtime.Interpreter(model_path=str(file))
        interpreter.allocate_tensors()
        return interpreter
    raise SystemExit("no TFLite runtime is installed: pip install ai-edge-litert")


def run(interpreter, values):
    """Runs a network on real values, and returns its real outputs, float32 [1, ...]."""
    source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.set_tensor(source["index"], quantize(values, source))
    interpreter.invoke()
    return dequantize(interpreter.get_tensor(result["index"]), result)


def quantize(values, tensor):
    """Real values as a tensor stores them."""
    scale, zero_point = tensor["quantization"]
    if not scale:
        return values.astype(tensor["dtype"])
    limits = np.iinfo(tensor["dtype"])
    return np.clip(np.rint(values / np.float32(scale)) + zero_point, limits.min, limits.max).astype(tensor["dtype"])


def dequantize(stored, tensor):
    """The real values of what a tensor stores."""
    scale, zero_point = tensor["quantization"]
    if not scale:
        return stored.astype(np.float32)
    return np.float32(scale) * (stored.astype(np.float32) - np.float32(zero_point))


def show(outputs):
    """Prints the answer for one example, given its outputs without the batch dimension."""
    print(outputs)  # replaced by the task's own lines


def main():
    """Runs the model on the given file."""
    import preprocessing

    example = preprocessing.EXAMPLE
    manifest = read_manifest()
    parser = argparse.ArgumentParser(description=f"Runs the model of this folder on {example}s.")
    parser.add_argument("file", type=Path, metavar=example.upper())
    parser.add_argument("--model", default=manifest["model"], help="file in this folder; default: %(default)s")
    arguments = parser.parse_args()
    values = preprocessing.preprocess(preprocessing.read(arguments.file), manifest["preprocessing"])
    show(run(load(FOLDER / arguments.model), values)[0])


if __name__ == "__main__":
    main()

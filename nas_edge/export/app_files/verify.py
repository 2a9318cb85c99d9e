"""Checks this folder on this machine: its files, the preprocessing, and what every model answers.

    python verify.py

Requires what `example_python.py` does. Prints what differs and exits with 1, or ends with `pass`.

The examples in `golden/` are preprocessed by `preprocessing.py` and run by the code of `example_python.py`. Runtimes
have two families of kernels that round differently; a model's outputs have to agree with the recorded ones of either.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np

sys.dont_write_bytecode = True  # the folder stays as it was delivered

FOLDER = Path(__file__).resolve().parent
SUMS = "SHA256SUMS"
KERNELS = ("xnnpack", "builtin")


def changed_files():
    """What is wrong with the files that `SHA256SUMS` lists, and how many those are."""
    wrong, count = [], 0
    for line in (FOLDER / SUMS).read_text(encoding="utf-8").splitlines():
        expected, separator, name = line.partition("  ")
        if not separator or len(expected) != 64:
            wrong.append(f"{SUMS}: cannot be read: {line[:80]!r}")
            continue
        count += 1
        try:
            content = (FOLDER / name).read_bytes()
        except OSError as error:
            wrong.append(f"{name}: {error.strerror} (listed in {SUMS})")
            continue
        if hashlib.sha256(content).hexdigest() != expected:
            wrong.append(f"{name}: its SHA-256 is not the one in {SUMS}")
    return wrong, count


def differing_outputs():
    """What differs from the recorded inputs and outputs, and how large the differences are."""
    import example_python as example
    import preprocessing

    manifest = example.read_manifest()
    rules, names = manifest["preprocessing"], manifest["golden"]
    wrong, says = [], []
    inputs = []
    for number, name in enumerate(names):
        found = preprocessing.preprocess(preprocessing.read(FOLDER / name), rules)
        expected = np.load(FOLDER / f"golden/{number}_input.npy", allow_pickle=False)
        steps = float((np.abs(found - expected) * np.float32(rules["std"])).max())
        if not steps <= preprocessing.TOLERANCE:
            differs = f"it differs by {steps:.3g} {preprocessing.UNIT} from golden/{number}_input.npy"
            wrong.append(f"{name}: preprocessed, {differs}")
        inputs.append(expected)
    for precision, facts in manifest["models"].items():
        interpreter = example.load(FOLDER / facts["file"])
        result = interpreter.get_output_details()[0]
        outputs = [example.run(interpreter, values) for values in inputs]
        differences = {}
        for kernels in KERNELS:
            files = [f"golden/{number}_{precision}_{kernels}.npy" for number in range(len(names))]
            recorded = [example.dequantize(np.load(FOLDER / file, allow_pickle=False), result) for file in files]
            differences[kernels] = float(np.abs(np.concatenate(outputs) - np.concatenate(recorded)).max())
        nearest = min(differences, key=differences.get)
        line = f"{facts['file']}: outputs differ by {differences[nearest]:.3g} from those of {nearest} kernels"
        if differences[nearest] <= facts["tolerance"]:
            says.append(line)
        else:
            wrong.append(f"{line}, more than the {facts['tolerance']:.3g} allowed")
    return wrong, says


def main():
    """Checks all, and returns the exit code."""
    wrong, count = changed_files()
    says = []
    if not wrong:  # Code that was changed is not run.
        wrong, says = differing_outputs()
    for line in says + [f"FAIL {line}" for line in wrong]:
        print(line)
    print("FAIL" if wrong else f"pass: {count} files are unchanged, and the models answer as recorded")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Pythons as boards have them, on this machine: to test what runs on a board without one. Never for timing.

    prepare_board_python.py aarch64   Debian's Python for 64-bit Arm, which runs under QEMU's user-mode emulation
    prepare_board_python.py old       the oldest of the Pythons 3.7 to 3.9 on PATH, or in pyenv

Each has NumPy and a TFLite runtime, lies in a cache folder, and is printed as the path of its interpreter: for
`ssh://HOST?python=PATH`, or for tests in NAS_EDGE_AARCH64_PYTHON and NAS_EDGE_BOARD_PYTHON; tests find those in the
cache by themselves.

No root is needed, and the system's apt is left alone (see `debian.py`; `--mirror` is for machines that are not Debian).
Wheels come from the package index that pip is set up for, with the versions named here.

Python 3.10 or newer on Linux x86-64 with pip; nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from debian import Archive, PrepareError, cache_folder, call, hashes, unpack

SUITE = "bookworm"  # that of the present Raspberry Pi OS and of many boards
PACKAGES = ["python3-minimal", "libpython3-stdlib", "libgcc-s1", "libstdc++6"]
EMULATOR = "qemu-aarch64-static"
WHEELS = ["ai-edge-litert==2.1.0", "numpy==2.2.6", "flatbuffers==25.2.10"]
MANIFEST = "manifest.json"
LAYOUT_VERSION = 1
OLD = ("3.7", "3.8", "3.9")
OLD_WHEELS = ["tflite-runtime", "numpy<2"]
LOADS = "import numpy, platform; from {} import interpreter; print(platform.machine(), platform.python_version())"


def aarch64(cache: Path, mirror: str | None) -> Path:
    """Returns a Python for 64-bit Arm that runs here, downloading it if it is not there."""
    final = cache / f"aarch64-{SUITE}-{LAYOUT_VERSION}"
    python = final / "usr/bin/python3-emulated"
    if not (final / MANIFEST).is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="new-") as name:
            root = _unpacked(Path(name), mirror)
            # Another process may have been quicker: its folder is as good as ours.
            with contextlib.suppress(OSError):
                root.rename(final)
    # Its own name is what it finds its modules by, and what it starts itself again with, so it is that of the script.
    emulator = final / "usr/bin" / EMULATOR
    text = f'#!/bin/sh\nexec "{emulator}" -L "{final}" -0 "{python}" "{final}/usr/bin/python3.11" "$@"\n'
    if not python.is_file() or python.read_text() != text:
        python.write_text(text)
        python.chmod(0o755)
    _check(python, "ai_edge_litert", "aarch64 3.11")
    return python


def _unpacked(folder: Path, mirror: str | None) -> Path:
    root = folder / "root"
    packages = Archive(folder / "arm", SUITE, mirror, for_architecture="arm64").packages_with_dependencies(PACKAGES)
    emulator = Archive(folder / "own", SUITE, mirror).packages(["qemu-user-static"])
    unpack(packages, root)
    unpack(emulator, folder / "emulator")
    shutil.copy2(folder / "emulator/usr/bin" / EMULATOR, root / "usr/bin" / EMULATOR)
    for_arm = ["--platform=manylinux_2_27_aarch64", "--platform=manylinux2014_aarch64", "--python-version=3.11"]
    target = f"--target={root / 'usr/lib/python3/dist-packages'}"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
    call([*pip, "--disable-pip-version-check", target, *for_arm, *WHEELS])
    manifest = {**hashes([*packages, *emulator]), "wheels": WHEELS}
    (root / MANIFEST).write_text(json.dumps(manifest, indent=1))
    return root


def old(cache: Path) -> Path:
    """Returns the oldest Python that a board's worker must run on, in an environment with what it needs."""
    for version in OLD:
        found = _interpreter(version)
        if found is None:
            continue
        final = cache / f"python{version}-{LAYOUT_VERSION}"
        python = final / "bin/python"
        if not python.is_file():
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache, prefix="new-") as name:
                made = Path(name) / "environment"
                call([found, "-m", "venv", str(made)])
                pip = [str(made / "bin/python"), "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
                call([*pip, "--disable-pip-version-check", *OLD_WHEELS])
                with contextlib.suppress(OSError):
                    made.rename(final)
        _check(python, "tflite_runtime", version)
        return python
    raise PrepareError(f"none of the Pythons {', '.join(OLD)} is on PATH or in pyenv; install one")


def _interpreter(version: str) -> str | None:
    """A Python of a version; what pyenv puts on PATH may know the name and not run it."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser() / "versions"
    named = [shutil.which(f"python{version}"), *map(str, sorted(pyenv.glob(f"{version}.*/bin/python{version}")))]
    for path in filter(None, named):
        with contextlib.suppress(PrepareError):
            call([path, "-c", "import venv"])
            return path
    return None


def _check(python: Path, runtime: str, expected: str) -> None:
    answer = call([str(python), "-c", LOADS.format(runtime)]).strip()
    if expected not in answer:
        raise PrepareError(f"{python} does not run here: expected {expected}, received {answer[:200]!r}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("aarch64", "old"))
    parser.add_argument("--cache", type=Path, default=cache_folder() / "board-python", help="where it is kept")
    parser.add_argument("--mirror", help="URI of a Debian archive; that of this machine's apt without")
    arguments = parser.parse_args()
    try:
        cache = arguments.cache.resolve()
        print(aarch64(cache, arguments.mirror) if arguments.what == "aarch64" else old(cache))
    except PrepareError as error:
        print(f"prepare_board_python.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

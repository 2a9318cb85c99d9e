#!/usr/bin/env python3
"""TFLite's own benchmark_model for this machine, to develop and test against without a phone.

    build_benchmark_model.py   builds it from Debian's TensorFlow source into a cache folder and prints the folder

The folder holds bin/benchmark_model and lib/, the libraries it needs with their loader. It is the real tool, linked to
Debian's TFLite, for this machine's processor and without XNNPACK: what it prints is what the tool on a phone prints,
how long it takes is not. An Android build has to come from elsewhere, see the README.

The compiler and its libraries are unpacked into a folder (about 160 MB are fetched) and run there, in a user namespace:
no root, and nothing is installed. Python 3.10 or newer on a Debian or Ubuntu machine; nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import sys
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from debian import TRIPLET, Archive, PrepareError, architecture, cache_folder, call, hashes, unpack

SUITE = "sid"  # the only one with TFLite
PACKAGES = [
    "g++",
    "libabsl-dev",
    "libeigen3-dev",
    "libgemmlowp-dev",
    "libpthreadpool-dev",
    "libruy-dev",
    "libtensorflow-lite-dev",
]
MANIFEST = "manifest.json"
# Where lib/ is to be put for the file to start by itself once it has been pushed, as an Android build does.
PLACE = "/bench"
LITE = "tensorflow/lite"
# The list of tensorflow/lite/tools/benchmark/CMakeLists.txt, for a build without XNNPACK and GPU.
SOURCES = [
    *(f"{LITE}/tools/benchmark/{name}.cc" for name in (
        "benchmark_main", "benchmark_model", "benchmark_performance_options", "benchmark_tflite_model",
        "benchmark_utils", "profiling_listener", "register_custom_op",
    )),
    *(f"{LITE}/profiling/{name}.cc" for name in (
        "memory_info", "memory_usage_monitor", "profile_buffer", "profile_summarizer", "profile_summary_formatter",
        "root_profiler", "telemetry/profiler", "telemetry/telemetry", "time",
    )),
    *(f"{LITE}/tools/{name}.cc" for name in (
        "command_line_flags", "delegates/default_execution_provider", "delegates/delegate_provider",
        "delegates/external_delegate_provider", "evaluation/utils", "model_loader", "tool_params", "utils",
    )),
    f"{LITE}/kernels/internal/utils/sparsity_format_converter.cc",
    "tensorflow/tsl/util/stats_calculator.cc",
]  # fmt: skip
# The source is older than the compiler, whose headers include less than they used to.
OPTIONS = [
    *("-O2", "-std=c++17", "-DTFLITE_WITHOUT_XNNPACK", "-I/src", "-I/src/third_party/eigen3"),
    *("-I/usr/include/gemmlowp", "-I/usr/include/eigen3"),
    *(word for header in ("cstdint", "map", "string", "vector") for word in ("-include", header)),
]


def build(cache: Path, mirror: str | None) -> Path:
    """Returns the folder with the tool, building it if it is not there."""
    final = cache / "benchmark_model"
    if (final / MANIFEST).is_file():
        _verify(final)
        return final
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="new-") as name:
        work = Path(name)
        archive = Archive(work / "apt", SUITE, mirror, sources=True)
        packages = archive.packages_with_dependencies(PACKAGES)
        source = archive.source("tensorflow")
        root = _compiler(packages, work / "root")
        _unpack_source(source, root / "src")
        bundle = _bundle(root, work / "benchmark_model")
        manifest = {"source": source.name, "architecture": architecture(), "sha256": hashes([*packages, source])}
        (bundle / MANIFEST).write_text(json.dumps(manifest, indent=1))
        _verify(bundle)
        # Another process may have been quicker: its folder is as good as ours.
        with contextlib.suppress(OSError):
            bundle.rename(final)
    _verify(final)
    return final


def _compiler(packages: list[Path], root: Path) -> Path:
    for name in ("bin", "lib", "lib64", "sbin"):  # as Debian has them
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for name in ("dev", "tmp", "objects"):
        (root / name).mkdir()
    unpack(packages, root)
    return root


def _unpack_source(source: Path, target: Path) -> None:
    """Unpacks what the tool is made of: the whole source has ten times as many files."""
    wanted = re.compile(rf"{LITE}/|tensorflow/core/util/stat|tensorflow/tsl/")
    with tarfile.open(source) as archive:
        for member in archive:
            inner = member.name.partition("/")[2]
            if member.isfile() and wanted.match(inner) and ".." not in inner.split("/"):
                file = target / inner
                file.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                assert content is not None
                file.write_bytes(content.read())
    if not (target / LITE).is_dir():
        raise PrepareError(f"{source.name} has no {LITE}")
    # Headers name it by its place in TensorFlow's own tree.
    (target / "third_party/eigen3").mkdir(parents=True)
    (target / "third_party/eigen3/Eigen").symlink_to("/usr/include/eigen3/Eigen")


def _bundle(root: Path, bundle: Path) -> Path:
    def compile_one(source: str) -> str:
        target = f"/objects/{source.replace('/', '_')}.o"
        _in_root(root, ["/usr/bin/g++", "-c", *OPTIONS, f"/src/{source}", "-o", target])
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, SOURCES))
    libraries = root / "usr/lib" / TRIPLET[architecture()]
    absl = sorted(file.name[3:-3] for file in libraries.glob("libabsl_*.so"))
    loader = next(libraries.glob("ld-linux-*.so.*")).name
    link = ["-ltensorflow-lite", *(f"-l{name}" for name in absl)]
    # Old tags: the libraries' own libraries are to be found there, too.
    link.append(f"-Wl,--dynamic-linker={PLACE}/lib/{loader},--disable-new-dtags,-rpath,{PLACE}/lib")
    _in_root(root, ["/usr/bin/g++", *objects, "-o", "/objects/benchmark_model", *link])
    listed = _in_root(root, [f"/lib/{libraries.name}/{loader}", "--list", "/objects/benchmark_model"])
    for folder in ("bin", "lib"):
        (bundle / folder).mkdir(parents=True)
    shutil.copy(root / "objects/benchmark_model", bundle / "bin")
    shutil.copy(libraries / loader, bundle / "lib")
    for path in re.findall(r"=> (/\S+)", listed):
        shutil.copy(root / path.removeprefix("/"), bundle / "lib")
    return bundle


def _in_root(root: Path, command: list[str]) -> str:
    script = 'mount --rbind /dev "$0/dev" && exec chroot "$0" "$@"'
    inside = ["unshare", "--user", "--map-root-user", "--mount", "--", "sh", "-c", script, str(root), *command]
    return call(inside, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"})


def _verify(bundle: Path) -> None:
    """Runs the tool without a model: it says so and fails, which is what it does where it works."""
    loader = next((bundle / "lib").glob("ld-linux-*.so.*"), None)
    if loader is None or not (bundle / "bin/benchmark_model").is_file():
        raise PrepareError(f"{bundle} is incomplete; delete it and run this again")
    start = [str(loader), "--library-path", str(bundle / "lib"), str(bundle / "bin/benchmark_model")]
    try:
        call(start)
    except PrepareError as error:
        if "Please specify the name of your TF Lite input file" in str(error):
            return
        raise
    raise PrepareError(f"{bundle} does not behave like benchmark_model; delete it and run this again")


def main() -> int:
    """Builds; a problem is one line on standard error and exit status 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="default: %(default)s")
    parser.add_argument("--mirror", help="URI of a Debian archive; default: the one of this machine's apt")
    arguments = parser.parse_args()
    try:
        print(build(arguments.cache, arguments.mirror))
    except (PrepareError, OSError, tarfile.TarError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

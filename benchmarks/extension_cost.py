"""Claim: whatever can be added to nas_edge is added by another package; no file of this project has to change.

For every seam a minimal implementation is installed as a distribution of its own: the code of the documentation's page
about that seam, and a joint space of networks and an accelerator. It is then used end to end through the command line.
Counted are the files of `nas_edge` and `device_agents` that are not the same afterwards, and those that name one of the
additions.

    python -m benchmarks.extension_cost [--quick]

With --quick, what needs TensorFlow runs in one search of all additions together; else each has its own search as well.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.joint_package import install_joint
from tests.support.pages import install_page

ROOT = Path(__file__).parents[1]
PACKAGES = ("nas_edge", "device_agents")
LIMIT_S = 900.0

# Runs several commands in one process, so that TensorFlow is loaded once.
DRIVER = """
import json, sys
from nas_edge import cli
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["nas-edge", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        if end.code:
            sys.exit(f"nas-edge {' '.join(arguments)}: exit code {end.code}")
"""

TABLE = """depth,width,accuracy,phone_ms
1,16,88.1,1.9
1,32,90.0,3.1
2,16,90.9,3.3
2,32,92.8,6.2
"""


@dataclass(frozen=True)
class Extension:
    """Something that another package adds.

    Attributes:
        seam: what it is an implementation of.
        name: by which users choose it.
        place: the setting that holds the name; "" for a device.
        page: of the documentation, whose code it is; "" for the joint space.
        commands: what it is used in, words joined by blanks; `{out}` is a new folder for the run.
        alone: options of a search of its own with TensorFlow; "" for none.
    """

    seam: str
    name: str
    place: str
    page: str
    commands: tuple[str, ...] = ()
    alone: str = ""


ON_TABLE = (
    "search --table {table} --decisions depth,width --quality-column accuracy --quality-scale 0.01 "
    "--latency-column phone_ms --target-ms 4 --steps 12 --out {out} "
)
# Qualities and latencies of networks that need no training, so no TensorFlow either.
UNTRAINED = (
    "search --preset smoke --set task.name=tabular --method multi-trial --set search.quality.source=size "
    "--target-ms 1000 --steps 6 --out {out} "
)
REPORT = "report {out}"
# What is trained is trained a little; whether this machine is quiet enough to be measured on is not asked.
BRIEFLY = (
    "--set training.epochs=1 --set measure.max_relative_half_width=5 --set final_measure.max_relative_half_width=5 "
    "--set measure.max_risk=1 --set final_measure.max_risk=1 --target-ms 1000 --out {out} "
)
EXTENSIONS = (
    Extension(
        "search method",
        "screened",
        "search.method",
        "own-search-method.md",
        (ON_TABLE + "--method screened --set search.slack=1.1", REPORT),
    ),
    Extension(
        "controller",
        "climber",
        "search.controller.name",
        "own-controller.md",
        (ON_TABLE + "--method multi-trial --controller climber --set search.controller.changes=1", REPORT),
    ),
    Extension(
        "quality source",
        "size",
        "search.quality.source",
        "own-quality-source.md",
        (UNTRAINED + "--set search.quality.enough=1e5 --latency roofline", REPORT),
        "--method multi-trial --set search.quality.source=size",
    ),
    Extension(
        "latency source",
        "roofline",
        "latency.source",
        "own-latency-source.md",
        (UNTRAINED + "--latency roofline:1e6", REPORT),
        "--latency roofline:1e6",
    ),
    Extension(
        "space",
        "small-stages",
        "space.name",
        "own-space.md",
        ("spaces small-stages", UNTRAINED + "--space small-stages --latency roofline", REPORT),
        "--space small-stages",
    ),
    Extension(
        "space with extras",
        "joint",
        "space.name",
        "",
        ("spaces joint", UNTRAINED + "--space joint --latency elements", REPORT),
        "--space joint --latency elements --method multi-trial --set search.quality.source=size",
    ),
    Extension(
        "device scheme",
        "toy",
        "",
        "own-device-scheme.md",
        ("devices", "devices setup toy:1 --mhz 1500", "devices doctor toy:1"),
        "--device toy:1",
    ),
    Extension("layer", "leaky", "space.name", "own-layer.md", ("spaces leaky",), "--space leaky"),
    Extension(
        "task",
        "brightness",
        "task.name",
        "own-task.md",
        (),
        "--set task.name=brightness --set training.learning_rate=0.02",
    ),
    Extension(
        "training method", "twice", "training.method", "own-training-method.md", (), "--set training.method=twice"
    ),
)
TOGETHER = (
    "search --preset smoke --space leaky --method multi-trial --set search.quality.source=size --latency roofline:1e6 "
    "--device toy:1 --set task.name=brightness --set training.method=twice --set training.learning_rate=0.02 --steps 4 "
) + BRIEFLY
TOGETHER_SHOWS = ("device scheme", "layer", "task", "training method", "quality source", "latency source")


def distribute(site: Path, extension: Extension) -> int:
    """Installs an extension as a distribution of its own; returns the lines of its modules."""
    if not extension.page:
        modules = {"joint": install_joint(site)}
    else:
        modules = dict(install_page(site, ROOT / "docs" / extension.page))
    return sum(bool(line.strip()) for module in modules.values() for line in module.splitlines())


def contents() -> dict[str, str]:
    """A hash of every file of the project's packages."""
    return {
        path.relative_to(ROOT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def names_in(path: Path) -> Iterator[str]:
    """What a module compares something with, or has in a `Literal` or a table."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Compare, ast.Subscript, ast.MatchValue)):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                    yield inner.value


def naming() -> list[str]:
    """Files of the project that name an extension."""
    names = {extension.name for extension in EXTENSIONS}
    return sorted(
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if names & set(names_in(path))
    )


def run(site: Path, folder: Path, commands: Sequence[Sequence[str]]) -> tuple[bool, str]:
    """Runs commands in one process that finds the site's packages; returns whether all succeeded, and what was said."""
    paths = [str(site), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(commands)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    return done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def words(command: str, out: Path, table: Path) -> list[str]:
    """The words of a command."""
    return [word.format(out=out, table=table) for word in command.split()]


def chosen(out: Path, extension: Extension) -> bool:
    """Whether a run is finished, and was made with the extension."""
    try:
        json.loads((out / "result.json").read_text(encoding="utf-8"))
        found = json.loads((out / "config.json").read_text(encoding="utf-8"))
    except OSError:
        return False
    if not extension.place:
        return any(address.startswith(f"{extension.name}:") for address in found["device"]["addresses"])
    for part in extension.place.split("."):
        found = found[part]
    return bool(found == extension.name)


def used(site: Path, folder: Path, quick: bool) -> tuple[dict[str, bool], list[str]]:
    """Uses every extension; returns whether that worked by seam, and what went wrong."""
    table = folder / "results.csv"
    table.write_text(TABLE, encoding="utf-8")
    worked: dict[str, bool] = {}
    said = []

    def note(extension: Extension, ok: bool, output: str) -> None:
        worked[extension.seam] = worked.get(extension.seam, True) and ok
        if not ok:
            said.append(f"{extension.seam}: {output}")

    light = [extension for extension in EXTENSIONS if extension.commands]
    commands = [words(one, folder / ext.name, table) for ext in light for one in ext.commands]
    ok, output = run(site, folder, commands)
    for extension in light:
        searches = any(command.startswith("search") for command in extension.commands)
        note(extension, ok and (not searches or chosen(folder / extension.name, extension)), output)
    out = folder / "together"
    ok, output = run(site, folder, [words(TOGETHER, out, table), ["report", str(out)]])
    for extension in EXTENSIONS:
        if extension.seam in TOGETHER_SHOWS:
            note(extension, ok and chosen(out, extension), output)
    for extension in EXTENSIONS if not quick else ():
        if extension.alone:
            out = folder / f"{extension.name}-alone"
            search = words(f"search --preset smoke --steps 8 {extension.alone} {BRIEFLY}", out, table)
            ok, output = run(site, folder, [search, ["report", str(out)]])
            note(extension, ok and chosen(out, extension), output)
    return worked, said


def main() -> int:
    parser = argparse.ArgumentParser(description="Adds an implementation of every seam from another package.")
    parser.add_argument("--quick", action="store_true", help="one search with TensorFlow, of all additions together")
    quick = parser.parse_args().quick
    before = contents()
    with tempfile.TemporaryDirectory() as made:
        folder, site = Path(made), Path(made) / "site"
        lines = {extension.seam: distribute(site, extension) for extension in EXTENSIONS}
        worked, said = used(site, folder, quick)
    after = contents()
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    named = naming()
    for problem in said:
        print(problem, file=sys.stderr)
    print(f"{'seam':<18} {'added':<14} {'its lines':>9}  {'works':<5}  files of the project changed")
    for extension in EXTENSIONS:
        works = "yes" if worked.get(extension.seam) else "NO"
        print(f"{extension.seam:<18} {extension.name:<14} {lines[extension.seam]:>9}  {works:<5}  {len(changed)}")
    print(f"files that changed: {', '.join(changed) or 'none'}")
    print(f"files that name an addition: {', '.join(named) or 'none'}")
    figures = {
        "seams": len(EXTENSIONS),
        "working": sum(worked.values()),
        "files_changed": len(changed),
        "files_naming_an_addition": len(named),
    }
    passed = not changed and not named and figures["working"] == figures["seams"]
    print(json.dumps({"benchmark": "extension_cost", "figures": figures, "target": 0, "pass": passed}))
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())

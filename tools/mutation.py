"""Do tests notice small mistakes? Runs them on mutants (`pip install 'nas-edge[test,mutation]'`).

    python tools/mutation.py [--sample 300] [--seed 0] [--only 'nas_edge/search/*'] [--again] [--jobs 1] [--list]

Draws mutants of the modules named in `tools/mutation.yaml` (see `mutants.py` for what those are), runs the tests that
the same file names for each, and lists the mutants that no test notices. A test that fails, or goes on for much longer
than before, kills a mutant; tests of more than 15 s are left out. The last line is JSON; `pass` says that the lower end
of the 95% interval of the share killed reaches the target.

Results are kept in `build/mutation`, so that a run that was stopped goes on, and a larger sample only adds to a smaller
one. What was killed stays killed while its function stays the same; after new tests, `--again` runs the survivors anew.

Everything happens in copies of the project, and the working tree may be edited meanwhile. Large packages are imported
once, in a process from which one is forked for each mutant (Linux and macOS).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml
from mutants import Mutant, in_drawn_order, mutants_of

TARGET = 0.85
KEPT = Path("build/mutation")
NOT_COPIED = ("build", "dist", "runs")
# A test of a mutant may take so many times the processor time that it takes without, and so many seconds more.
MOST_TIMES, MOST_MORE_S = 5, 20
# Tests that take more processor time, in seconds, are left out: they would be most of what a survivor takes.
LONGEST_S = 15
# For collecting tests, in processor seconds, and for what waits without using the processor, in seconds of naps.
COLLECTING_S, WAITING_S = 120, 900
NAP_S = 0.02


@dataclass(frozen=True)
class Result:
    """What became of a mutant.

    Attributes:
        outcome: "killed", "timeout" (killed by taking too long), or "survived".
        test: The test that failed or took too long, if it is known.
        seconds: How long the tests ran.
    """

    identity: str
    outcome: str
    test: str
    seconds: float


@dataclass(frozen=True)
class Costs:
    """What the tests of a room take without a mistake: by test, seconds and processor seconds."""

    seconds: dict[str, float]
    processor_s: dict[str, float]


# One run of tests, in a process of its own


class TestOrder:
    """A pytest plugin: runs quick tests first, limits each one's processor time, and says what it took."""

    __test__ = False

    def __init__(self, costs: Costs, notes: Path) -> None:
        self._costs, self._notes = costs, notes
        self._seen = Costs({}, {})

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Puts quick tests first and leaves the longest out."""
        # In a few steps, as tests of one module share what they prepare.
        items[:] = [item for item in items if self._costs.processor_s.get(item.nodeid, 0) <= LONGEST_S]
        items.sort(key=lambda item: math.ceil(math.log(self._costs.seconds.get(item.nodeid, 0) + 0.1, 4)))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Notes which test runs, and what it takes."""
        self._notes.write_text(json.dumps({"test": item.nodeid}), encoding="utf-8")
        started_s, used_s, used_by_all_s = time.monotonic(), processor_s(), processor_s(*_ALL)
        _limit_processor(used_s + MOST_TIMES * self._costs.processor_s.get(item.nodeid, MOST_MORE_S) + MOST_MORE_S)
        done = yield
        self._seen.seconds[item.nodeid] = time.monotonic() - started_s
        self._seen.processor_s[item.nodeid] = processor_s(*_ALL) - used_by_all_s
        return done

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Leaves what tests took, unless one has failed."""
        if exitstatus == pytest.ExitCode.OK:
            self._notes.write_text(json.dumps(asdict(self._seen)), encoding="utf-8")


_ALL = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def processor_s(*whose: int) -> float:
    """Returns the processor time of this process, or also that of others that it has started, in seconds."""
    used = [resource.getrusage(one) for one in whose or (resource.RUSAGE_SELF,)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _limit_processor(most_s: float) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(most_s), hard))


def _run_pytest(tests: Sequence[str], costs: Costs, notes: Path, log: Path) -> NoReturn:
    """Runs tests in this process, which a fork has made, and ends it."""
    code = 1
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        _limit_processor(processor_s() + COLLECTING_S)
        # Tests' own limits go by the clock, and so fail on a busy machine.
        options = ["-x", "-q", "-p", "no:cacheprovider", "-o", "timeout=0"]
        # What is preloaded may be a plugin of pytest's, too.
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        code = int(pytest.main([*options, *tests], plugins=[TestOrder(costs, notes)]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def run_tests(tests: Sequence[str], costs: Costs, folder: Path) -> tuple[str, dict[str, Any]]:
    """Runs tests in a forked process until one fails; returns the outcome and what they noted."""
    notes, log = folder / "notes.json", folder / "log.txt"
    notes.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        _run_pytest(tests, costs, notes, log)
    status = _wait(child)
    with suppress(ProcessLookupError):  # what tests have started and a mutant did not end
        os.killpg(child, signal.SIGKILL)
    found = json.loads(notes.read_text(encoding="utf-8")) if notes.exists() else {}
    if status is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
        return "timeout", found
    return ("killed" if status else "survived"), found


def _wait(child: int) -> int | None:
    """Returns how a process ended, None if it had to be killed."""
    # Counted in naps: while a machine sleeps, or this process is stopped along with its child, no time passes.
    for _ in range(int(WAITING_S / NAP_S)):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(NAP_S)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


# In the process that mutants are forked from


_tree = Path()


def prepare(source: str, copies: str, preload: Sequence[str]) -> None:
    """Copies the project and imports what is large; called once in each process of the pool."""
    global _tree
    _tree = Path(tempfile.mkdtemp(dir=copies)) / "tree"
    _tree.mkdir()
    for entry in Path(source).iterdir():
        if entry.is_dir() and not entry.name.startswith(".") and entry.name not in NOT_COPIED:
            shutil.copytree(entry, _tree / entry.name)
        elif entry.is_file():
            shutil.copy2(entry, _tree)
    os.chdir(_tree)
    # Before the installed project, for the tests and for what they start.
    sys.path.insert(0, str(_tree))
    os.environ["PYTHONPATH"] = str(_tree)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in preload:
            __import__(name)


def costs_of(tests: str) -> Costs:
    """Returns what a file of tests takes without a mistake, in a process of the pool.

    Raises:
        RuntimeError: If one of them fails.
    """
    outcome, notes = run_tests([tests], Costs({}, {}), _tree.parent)
    if outcome != "survived":
        log = (_tree.parent / "log.txt").read_text(encoding="utf-8", errors="replace")
        raise RuntimeError(f"tests fail without any mistake: {tests}\n{log[-3000:]}")
    return Costs(**notes)


def try_mutant(identity: str, path: str, source: str, tests: Sequence[str], costs: Costs) -> Result:
    """Runs the tests of a mutant, in a process of the pool."""
    started_s = time.monotonic()
    with _in_place(_tree / path, source):
        outcome, notes = run_tests(tests, costs, _tree.parent)
    test = "" if outcome == "survived" else notes.get("test", "while loading")
    return Result(identity, outcome, test, round(time.monotonic() - started_s, 1))


@contextmanager
def _in_place(file: Path, source: str) -> Iterator[None]:
    """Puts a mutant in the place of its module, with no bytecode left of either."""
    original, found = file.read_bytes(), file.stat()
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    file.write_text(source, encoding="utf-8")
    os.utime(file, (1, 1))  # unlike that of any bytecode
    try:
        yield
    finally:
        file.write_bytes(original)
        os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
        sys.dont_write_bytecode = False
        del os.environ["PYTHONDONTWRITEBYTECODE"]


# In the process of the command


@dataclass(frozen=True)
class Room:
    """Modules, by patterns, and the tests that concern them."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]


def rooms_of_modules(rooms: Sequence[Room]) -> dict[str, Room]:
    """Returns the room of each module; the first that names it."""
    found: dict[str, Room] = {}
    for room in rooms:
        for pattern in room.modules:
            files = sorted(Path().glob(pattern))
            if not files:
                sys.exit(f"mutation.py: no module matches {pattern!r}")
            for file in files:
                found.setdefault(file.as_posix(), room)
    return found


def _known_results(file: Path) -> dict[str, Result]:
    """The last result of each mutant; a line that a kill has cut short is none."""
    known: dict[str, Result] = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        with suppress(ValueError, TypeError):
            result = Result(**json.loads(line))
            known[result.identity] = result
    return known


def _test_files(room: Room) -> list[str]:
    files = [[Path(test)] if test.endswith(".py") else sorted(Path(test).rglob("test_*.py")) for test in room.tests]
    return [file.as_posix() for found in files for file in found]


def _costs(pool: ProcessPoolExecutor, room: Room) -> Costs:
    """What a room's tests take; files of tests that have not changed since are not run again."""
    files = {file: hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in _test_files(room)}
    kept, costs = KEPT / "costs.json", Costs({}, {})
    known = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    for file, digest in files.items():
        if known.get(file, {}).get("digest") != digest:
            print(f"running without mistakes: {file}", flush=True)
            known[file] = {"digest": digest, "costs": asdict(pool.submit(costs_of, file).result())}
            kept.write_text(json.dumps(known), encoding="utf-8")
        costs.seconds.update(known[file]["costs"]["seconds"])
        costs.processor_s.update(known[file]["costs"]["processor_s"])
    return costs


def run(drawn: Sequence[Mutant], rooms: dict[str, Room], preload: Sequence[str], jobs: int, results: Path) -> None:
    """Tries mutants and adds their results to a file as they come."""
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(dir=KEPT) as copies,
        ProcessPoolExecutor(jobs, context, prepare, (str(Path.cwd()), str(Path(copies).resolve()), preload)) as pool,
        results.open("a", encoding="utf-8") as file,
    ):
        # Room by room, so that what tests take is found out as late as possible.
        for room in dict.fromkeys(rooms.values()):
            mutants = [mutant for mutant in drawn if rooms[mutant.path] == room]
            if not mutants:
                continue
            tests, costs = _test_files(room), _costs(pool, room)
            running: dict[Future[Result], Mutant] = {}
            for mutant in mutants:
                job = (mutant.identity, mutant.path, mutant.source(), tests, costs)
                running[pool.submit(try_mutant, *job)] = mutant
            for future in as_completed(running):
                result = future.result()
                file.write(json.dumps(asdict(result)) + "\n")
                file.flush()
                print(f"{result.outcome:8} {result.seconds:6.1f} s  {running[future]}  {result.test}", flush=True)


def report(drawn: Sequence[Mutant], known: dict[str, Result], seed: int) -> None:
    """Prints the survivors, and figures as JSON."""
    from scipy.stats import binomtest

    outcomes = Counter(known[mutant.identity].outcome for mutant in drawn)
    survivors = [str(mutant) for mutant in drawn if known[mutant.identity].outcome == "survived"]
    for survivor in sorted(survivors):
        print(f"survived: {survivor}")
    noticed = len(drawn) - len(survivors)
    lower = float(binomtest(noticed, len(drawn)).proportion_ci(0.95, method="wilson").low)
    by_operator = Counter(mutant.operator for mutant in drawn)
    survived = Counter(mutant.operator for mutant in drawn if known[mutant.identity].outcome == "survived")
    figures = {
        "benchmark": "mutation",
        "seed": seed,
        "mutants": len(drawn),
        "killed": outcomes["killed"],
        "timeouts": outcomes["timeout"],
        "survived": outcomes["survived"],
        "survived_by_operator": {name: [survived[name], count] for name, count in by_operator.most_common()},
        "share_killed": noticed / len(drawn),
        "lower_95": lower,
        "target": TARGET,
        "pass": lower >= TARGET,
    }
    print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=300, help="how many mutants")
    parser.add_argument("--seed", type=int, default=0, help="which mutants")
    parser.add_argument("--only", metavar="GLOB", help="of these modules only")
    parser.add_argument("--again", action="store_true", help="try those that have survived again")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--list", action="store_true", help="list the mutants only")
    parser.add_argument("--rooms", type=Path, default=Path("tools/mutation.yaml"), help="modules and their tests")
    arguments = parser.parse_args()
    table = yaml.safe_load(arguments.rooms.read_text(encoding="utf-8"))
    rooms = rooms_of_modules([Room(tuple(room["modules"]), tuple(room["tests"])) for room in table["rooms"]])
    paths = [path for path in rooms if fnmatch(path, arguments.only or "*")]
    drawn = in_drawn_order((mutant for path in paths for mutant in mutants_of(path)), arguments.seed)
    drawn = drawn[: arguments.sample]
    if arguments.list or not drawn:
        print(*drawn, sep="\n")
        return
    KEPT.mkdir(parents=True, exist_ok=True)
    results = KEPT / "results.jsonl"
    known = _known_results(results)
    left = {identity for identity, one in known.items() if not (arguments.again and one.outcome == "survived")}
    if to_try := [mutant for mutant in drawn if mutant.identity not in left]:
        run(to_try, rooms, table.get("preload", ()), arguments.jobs, results)
    report(drawn, _known_results(results), arguments.seed)


if __name__ == "__main__":
    main()

"""Claim: whatever breaks, the right one is blamed.

Faults are drawn from a seed and struck in the middle of searches (candidates through `DeviceSource` and
`RetryingSource`) and of benchmark runs, on AOSP's real ADB daemon (tools/prepare_adbd.py) with TFLite's real tool where
it has been built (tools/build_benchmark_model.py), else a stand-in:

    tool        replaced by rename with one that prints random bytes and exits with 0, and put back later
    model       every model on the phone deleted, again and again for a while
    link        cut after a random number of bytes
    stalled     the daemon stops answering for a while
    killed      the daemon killed and started again
    disk        the phone's storage full for a while
    second      another user, with settings of their own, wants to measure on the same phone
    worker      the worker of this machine killed (the device is `host:`)
    broken      nothing; one of the models is truly broken

In all but the last every model is good, so a verdict that is a candidate's fault is wrong. In the last the broken model
must get such a verdict, and no other one may. Every candidate must be answered once, and nothing may be left on the
phone, neither files nor processes; where the phone was away when the run ended, not after the next run has connected.

Run `python -m benchmarks.blame [--quick] [--seed N]`; the last line is JSON. "pass" is null where there is no daemon.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import numpy as np

from device_agents.android.adb_shell_transport import AdbShellTransport
from device_agents.android.agent import AndroidAgent, AndroidSettings
from device_agents.android.benchmark_model import BLOCKS
from device_agents.api import BenchmarkSpec, DeviceAgent, Verdict
from device_agents.errors import DeviceError
from device_agents.host import HostAgent
from device_agents.pool import PoolSettings
from device_agents.verdicts import blames_candidate
from nas_edge.benchmarking import Request, run_benchmark
from nas_edge.benchmarking.report import ModelFile
from nas_edge.latency import device as device_source
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.retry import RetryingSource
from nas_edge.latency.source import Candidate
from nas_edge.networks.tflite_model import tflite_model
from nas_edge.spaces import find_space
from tests.support.android.phone import BASE, Phone, PhoneUnavailableError, files_of, write_overlay
from tests.support.android.phones import PIXEL
from tests.support.android.proxy import Proxy
from tests.support.android.tools import install_real_bundle, real_bundle, sized_script, write_tool
from tests.support.data import CACHE
from tests.support.models import OP, GraphWriter

CANDIDATES, MODELS = 3, 2
DATA_MIB = 64
SPEC = BenchmarkSpec(
    min_runs=BLOCKS,
    max_runs=20,
    min_duration_s=0.0,
    max_duration_s=0.1,
    warmup_min_runs=1,
    warmup_min_duration_s=0.0,
    max_relative_half_width=100.0,
    timeout_s=30.0,
    max_attempts=1,
    max_risk=1.0,  # who is to blame is asked here, not how quiet the machine is
    patience_s=0.0,
)
POOL = PoolSettings(quarantine_s=1.0, lost_after_s=30.0)
# How long a fault lasts and how long after the beginning it strikes, in seconds; the anchor takes the first part.
LASTS_S = (0.2, 1.5)
STRIKES_S = (0.3, 1.8)
WAIT_S = 180.0
NO_PROGRAM = "#!/system/bin/sh\nhead -c 3000 /dev/urandom\nexit 0\n"
SECOND = """
import sys
from device_agents.devices import open_device
from device_agents.errors import DeviceUnavailableError
with open_device(sys.argv[1]) as agent:
    try:
        agent.info()
    except DeviceUnavailableError as error:
        print(error)
    else:
        print("not refused")
"""


class Bench:
    """A phone that faults are struck on, and this machine."""

    def __init__(self, phone: Phone, tool: Path) -> None:
        self.phone, self.tool = phone, tool
        self.said = ""  # to the second user

    def script(self, text: str) -> str:
        """Runs a script on the phone, past the proxy."""
        with AdbShellTransport.tcp("127.0.0.1", self.phone.port) as link:
            return link.script(text, timeout_s=20.0).output

    def replace_tool(self, lasts_s: float, _: Proxy, __: int) -> None:
        """Puts another program in the tool's place, and the tool back later."""
        new = f"printf '%s' '{NO_PROGRAM}' > $t.new; chmod 755 $t.new; mv $t $t.aside; mv $t.new $t"
        self.script(f"for t in {BASE}/tools/*/benchmark_model; do {new}; done")
        time.sleep(lasts_s)
        self.script(f"for t in {BASE}/tools/*/benchmark_model; do mv $t.aside $t; done")

    def delete_models(self, lasts_s: float, _: Proxy, __: int) -> None:
        """Deletes the models on the phone, again and again."""
        loop = f"while [ $i -lt {int(lasts_s * 20)} ]; do i=$((i + 1)); rm -f {BASE}/run-*/model-*; sleep 0.05; done"
        self.script(f"i=0; {loop}")

    def cut_link(self, _: float, proxy: Proxy, size_bytes: int) -> None:
        """Cuts the link once so many bytes have passed."""
        done = threading.Event()
        proxy.cut_after(size_bytes, done.set)
        done.wait(10)

    def stall(self, lasts_s: float, _: Proxy, __: int) -> None:
        """Lets nothing pass for a while."""
        self.phone.order("stall")
        time.sleep(lasts_s)
        self.phone.order("flow")

    def kill(self, lasts_s: float, _: Proxy, __: int) -> None:
        """Kills the daemon and starts it again."""
        self.phone.order("kill")
        time.sleep(lasts_s / 2)
        self.phone.order("start")

    def fill(self, lasts_s: float, _: Proxy, __: int) -> None:
        """Leaves no room on the phone for a while."""
        self.script("cat /dev/zero > /data/local/tmp/fill 2>/dev/null; :")
        time.sleep(lasts_s)
        self.script("rm -f /data/local/tmp/fill")

    def second_user(self, _: float, __: Proxy, ___: int) -> None:
        """Wants the phone as another user would."""
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "XDG_CONFIG_HOME": folder, "NAS_EDGE_BENCHMARK_MODEL": str(self.tool)}
            command = [sys.executable, "-c", SECOND, self.phone.address]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        self.said = done.stdout.strip() or done.stderr.strip()[-200:]

    def kill_worker(self, _: float, __: Proxy, ___: int) -> None:
        """Kills the process that measures on this machine."""
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError, ValueError):
                words = stat.read_text().rpartition(")")[2].split()
                command = stat.with_name("cmdline").read_bytes()
                if int(words[1]) == os.getpid() and b"device_agents" in command:
                    os.kill(int(stat.parent.name), 9)

    def nothing(self, _: float, __: Proxy, ___: int) -> None:
        """A broken model is all that is wrong."""


FAULTS: dict[str, Callable[[Bench, float, Proxy, int], None]] = {
    "tool": Bench.replace_tool,
    "model": Bench.delete_models,
    "link": Bench.cut_link,
    "stalled": Bench.stall,
    "killed": Bench.kill,
    "disk": Bench.fill,
    "second": Bench.second_user,
    "worker": Bench.kill_worker,
    "broken": Bench.nothing,
}


@dataclass
class Outcome:
    """What became of one fault.

    Attributes:
        fault: A name of `FAULTS`.
        mode: "search" or "benchmark".
        verdicts: Of the good models.
        of_broken: Of the broken model, if there is one.
        wrong: What is not as it should be.
        swept: Whether the phone was away when the run ended, so that the next one had to remove what was left.
        late: Whether the run had ended before the fault struck, which then shows nothing.
    """

    fault: str
    mode: str
    verdicts: list[str] = field(default_factory=list)
    of_broken: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    swept: bool = False
    late: bool = False


def broken_model() -> bytes:
    """A file that looks whole and that no runtime loads: its operator does not exist."""
    writer = GraphWriter()
    one, other = writer.tensor("x", (1, 8)), writer.tensor("y", (1, 8))
    writer.op(OP.CUSTOM, [one], [other], custom_code=b"no_such_operator")
    return writer.pack([one], [other])


def searched(agent: DeviceAgent, candidates: Sequence[Candidate], broken: int | None, outcome: Outcome) -> None:
    """Has candidates measured as a search does; the one of this number is broken."""
    networks = {id(candidate.network): number for number, candidate in enumerate(candidates)}

    def written(network: object, precision: object) -> bytes:
        if networks.get(id(network)) == broken:
            return broken_model()
        return tflite_model(network, precision)  # type: ignore[arg-type]

    answered: Counter[int] = Counter()
    with (
        patch.object(device_source, "tflite_model", written),
        device_source.DeviceSource([agent], "int8", SPEC, POOL) as device,
    ):
        source = RetryingSource(device)
        futures: list[Future[LatencyAnswer]] = []
        for number, candidate in enumerate(candidates):
            futures.append(source.submit(candidate))
            futures[-1].add_done_callback(lambda _, number=number: answered.update([number]))  # type: ignore[misc]
        for number, future in enumerate(futures):
            try:
                verdict = str(future.result(WAIT_S).verdict)
            except DeviceError as error:
                verdict = "bench error"
                outcome.wrong.append(f"the search stopped: {error}")
            (outcome.of_broken if number == broken else outcome.verdicts).append(verdict)
    if sorted(answered.items()) != [(number, 1) for number in range(len(candidates))]:
        outcome.wrong.append(f"answered {dict(answered)}")


def benchmarked(agent: DeviceAgent, candidates: Sequence[Candidate], broken: int | None, outcome: Outcome) -> None:
    """Has models measured side by side."""
    files = []
    for number, candidate in enumerate(candidates):
        data = broken_model() if number == broken else tflite_model(candidate.network, "int8")
        files.append((ModelFile(str(number), str(number), "", len(data)), data))
    report = run_benchmark(Request(files, ("host:",), (1,), "search", SPEC), open_agent=lambda _: agent)
    for row in report.rows:
        verdicts = outcome.of_broken if row.model.name == str(broken) else outcome.verdicts
        verdicts.append(str(row.measurement.verdict))
        if row.model.name != str(broken) and not row.complete:
            outcome.wrong.append(f"not finished after {row.rounds} rounds ({row.measurement.detail})")
    if len(report.rows) != len(files):
        outcome.wrong.append(f"{len(report.rows)} rows for {len(files)} models")


MODES = {"search": (searched, CANDIDATES), "benchmark": (benchmarked, MODELS)}


def one_fault(bench: Bench, fault: str, mode: str, rng: np.random.Generator) -> Outcome:
    """Strikes one fault in the middle of a search or a benchmark run."""
    outcome = Outcome(fault, mode)
    measured, count = MODES[mode]
    space = find_space("proxylessnas")(16, 0.25, 10, 1)
    candidates = [Candidate(space.build(space.canonical(space.sample(rng)))) for _ in range(count)]
    broken = int(rng.integers(count)) if fault == "broken" else None
    after_s, lasts_s, size_bytes = rng.uniform(*STRIKES_S), rng.uniform(*LASTS_S), int(rng.integers(1, 60_000))
    bench.said = ""
    with Proxy(bench.phone.port) as proxy:
        agent: DeviceAgent = HostAgent()
        if fault != "worker":
            link = AdbShellTransport.tcp("127.0.0.1", proxy.port)
            agent = AndroidAgent(link, AndroidSettings(tool=bench.tool))
        agent.info()
        strike = threading.Timer(after_s, FAULTS[fault], (bench, lasts_s, proxy, size_bytes))
        strike.start()
        started_s = time.monotonic()
        try:
            measured(agent, candidates, broken, outcome)
        except DeviceError as error:
            outcome.wrong.append(str(error))
        finally:
            outcome.late = fault != "broken" and time.monotonic() - started_s < after_s
            strike.join()
            agent.close()
    judge(bench, outcome)
    return outcome


def judge(bench: Bench, outcome: Outcome) -> None:
    """Notes what is not as it should be."""
    outcome.wrong += [f"a good model: {verdict}" for verdict in outcome.verdicts if blames_candidate_named(verdict)]
    outcome.wrong += [f"a broken model: {v}" for v in outcome.of_broken if not blames_candidate_named(v)]
    if outcome.fault == "second" and bench.said and f", process {os.getpid()} since" not in bench.said:
        # It may come when the run is over and the phone is free.
        outcome.wrong += [] if bench.said == "not refused" else [f"the second user was told: {bench.said}"]
    if outcome.fault != "worker":
        left = files_of(bench.phone)
        if left:
            # From a phone that was away when the run ended, the next run removes it.
            outcome.swept = True
            link = AdbShellTransport.tcp("127.0.0.1", bench.phone.port)
            with AndroidAgent(link, AndroidSettings(tool=bench.tool)) as agent:
                agent.info()
            left = files_of(bench.phone)
        deadline_s = time.monotonic() + 5  # what is being ended may take a moment to be gone
        while "benchmark_model" in (running := bench.script("ps -A -o ARGS")) and time.monotonic() < deadline_s:
            time.sleep(0.1)
        if left:
            outcome.wrong.append(f"left behind: {' '.join(left)}")
        if "benchmark_model" in running:
            outcome.wrong.append("the tool still runs on the phone")


def blames_candidate_named(verdict: str) -> bool:
    """Whether a verdict, by its name, is held against the model."""
    return verdict in {v.value for v in Verdict} and blames_candidate(Verdict(verdict))


@contextlib.contextmanager
def bench_here(folder: Path) -> Iterator[tuple[Bench, str]]:
    """The phone, with the real tool or its stand-in.

    Raises:
        PhoneUnavailableError: If there is no daemon.
    """
    abi = {"aarch64": "arm64-v8a"}.get(platform.machine(), "x86_64")
    texts = {**PIXEL.texts, "getprop": PIXEL.texts["getprop"].replace("arm64-v8a", abi)}
    cores = {"sys/devices/system/cpu/possible": "0-1\n", "sys/devices/system/cpu/online": "0-1\n"}
    overlay = write_overlay(folder / "overlay", texts, {**PIXEL.files, **cores})
    bundle = real_bundle(CACHE)
    tool = install_real_bundle(bundle, overlay) if bundle else write_tool(folder, sized_script())
    phone = Phone(overlay, data_mib=DATA_MIB, host=bundle is None)
    try:
        yield Bench(phone, tool), "real" if bundle else "stand-in"
    finally:
        phone.close()


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes, one line for each kind of fault and mode."""
    lines = [f"{'fault':<9} {'mode':<10} {'struck':>6}  {'good models':<44} {'broken models':<24} wrong"]
    for fault in FAULTS:
        for mode in MODES:
            these = [o for o in outcomes if (o.fault, o.mode) == (fault, mode)]
            good = Counter(verdict for o in these for verdict in o.verdicts)
            broken = Counter(verdict for o in these for verdict in o.of_broken)
            said = [", ".join(f"{n} {name}" for name, n in sorted(counter.items())) for counter in (good, broken)]
            wrong = sum(bool(o.wrong) for o in these)
            if these:
                lines.append(f"{fault:<9} {mode:<10} {len(these):>6}  {said[0]:<44} {said[1] or '-':<24} {wrong}")
    return "\n".join(lines)


def drawn(count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """So many faults with their modes, in random order; each kind about as often as the others."""
    kinds = [(fault, mode) for fault in FAULTS for mode in MODES]
    chosen = [kinds[i % len(kinds)] for i in range(count)] if count >= len(kinds) else []
    chosen = chosen or [kinds[i] for i in rng.permutation(len(kinds))[:count]]
    return [chosen[i] for i in rng.permutation(len(chosen))]


def main() -> None:
    """Prints the table of outcomes; exits with 1 if anyone was blamed wrongly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="6 faults instead of 60")
    parser.add_argument("--seed", type=int, default=0, help="what the faults are drawn from; default: %(default)s")
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    outcomes: list[Outcome] = []
    result = {"benchmark": "blame", "seed": arguments.seed}
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CONFIG_HOME"] = os.environ["XDG_STATE_HOME"] = name
        try:
            with bench_here(Path(name)) as (bench, tool):
                due = drawn(6 if arguments.quick else 60, rng)
                while due:
                    fault, mode = due.pop(0)
                    outcomes.append(one_fault(bench, fault, mode, rng))
                    if outcomes[-1].late:
                        due.append((fault, mode))  # once more, in another moment
                    said = "too late" if outcomes[-1].late else "right"
                    print(f"{fault} in a {mode}: {'; '.join(outcomes[-1].wrong) or said}", flush=True)
        except PhoneUnavailableError as error:
            print(json.dumps({**result, "pass": None, "reason": f"no ADB daemon here: {error}"}))
            return
    print(table(outcomes))
    wrong = [text for outcome in outcomes for text in outcome.wrong]
    verdicts = Counter(verdict for outcome in outcomes for verdict in outcome.verdicts)
    of_broken = Counter(verdict for outcome in outcomes for verdict in outcome.of_broken)
    swept = sum(outcome.swept for outcome in outcomes)
    faults = sum(not outcome.late for outcome in outcomes)
    result |= {"tool": tool, "faults": faults, "late": len(outcomes) - faults}
    result |= {"wrong": len(wrong), "removed_by_next_run": swept}
    result |= {"pass": not wrong}
    print(json.dumps({**result, "good_models": dict(verdicts), "broken_models": dict(of_broken)}))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

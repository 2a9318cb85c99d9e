"""Claim: measuring a candidate on a phone costs at most 150 ms beyond what `benchmark_model` itself takes, and at most
five round trips if its file has at most 256 KiB.

Different random candidates of `mobilenet-v3-like` at 224 px, int8, are measured in visits, as a search does it, through
AOSP's real ADB daemon, which runs on this machine in namespaces of its own (tools/prepare_adbd.py): model packed,
pushed, unpacked and verified, state of the phone read, three rounds of the model and the probes in turn, a process of
the tool each, state read again, verdict. Overhead is wall time minus what the tool notes to have taken.

The tool is a stand-in by default: a script that prints what a real one once printed and runs no model. That leaves our
own part the same. With NAS_EDGE_BENCHMARK_BUNDLE (the folder that tools/build_benchmark_model.py prints) the script
runs the real tool.

For comparison, in turn with ours, a stock adb-shell client does the same steps with its own methods: push, without
verification; one command to look at the state, one to run the tool three times and look again, one to clean up.

Round trips are counted by a proxy that delays everything by 50 ms in each direction: one is counted when the client
sends something after something has come back. Candidates of 256 KiB whose weights do not pack are measured, with
all the visits that it takes, every other one after a pause, when the phone's state has to be read again. What the
probes take at first, until it is known how fast the phone is, is not counted.

A daemon on loopback is not a phone: no USB, no Android services (`dumpsys` costs some 40 ms each), this machine's CPU.
What is shown is our part.

Run `python -m benchmarks.adb_overhead [--quick]`; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from adb_shell.adb_device import AdbDeviceTcp

from device_agents.android.adb_shell_transport import AdbShellTransport
from device_agents.android.agent import AndroidAgent, AndroidSettings
from device_agents.android.benchmark_model import block_invocation
from device_agents.android.state import QUICK_SCRIPT
from device_agents.api import BenchmarkSpec
from device_agents.quiet import VisitSettings
from device_agents.visiting import VisitingAgent
from nas_edge.networks.tflite_model import tflite_model
from nas_edge.spaces import find_space
from tests.support.android.proxy import Proxy
from tests.support.models import conv_model

TARGET_MS = 150.0
TARGET_ROUND_TRIPS = 5
DELAY_S = 0.05
# The state of the phone holds good for a second.
PAUSE_S = 1.1
NOTES = "/data/local/tmp/tool_times"
PREPARE = Path(__file__).parents[1] / "tools/prepare_adbd.py"
# On a quiet phone.
VISITS = 3
# A short look is enough: the tool's own time is taken out.
SPEC = BenchmarkSpec(min_duration_s=0.0, max_relative_half_width=100.0)
CANNED = """INFO: Loaded model m
INFO: Initialized session in 0.403ms.
INFO: count=1 curr=13880

INFO: count=3 curr=12300(all same)

INFO: Inference timings in us: Init: 403, First inference: 13880, Warmup (avg): 13880, Inference (avg): 12300"""


def tool_script(work: str) -> str:
    """The tool that is pushed: does the work and notes when it began and ended, without starting other programs."""
    return f"""#!/system/bin/sh
case "$1" in --help) echo "	--graph="; exit 1;; esac
start=$EPOCHREALTIME
{work}
status=$?
echo "$start $EPOCHREALTIME" >> {NOTES}
exit $status
"""


@contextmanager
def daemon(overlay: Path) -> Iterator[int]:
    """Runs the daemon; yields its port."""
    command = [sys.executable, str(PREPARE), "serve", "--overlay", str(overlay), "--data-mib", "512"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address:
            sys.exit("The daemon cannot be had here; see the message above")
        yield int(address.rpartition(":")[2])
        process.stdin.close()


def models(count: int) -> list[bytes]:
    """So many different networks."""
    space = find_space("mobilenet-v3-like")(224, 1.0, 1001, 3)
    rng = np.random.default_rng(0)
    return [tflite_model(space.decode(space.canonical(space.sample(rng))), "int8") for _ in range(count)]


def tool_s(link: AdbShellTransport) -> float:
    """Takes the notes of the tool: seconds since they were last taken."""
    notes = link.script('cat "$1"; rm -f "$1"', NOTES).output.split()
    return sum(float(end) - float(start) for start, end in zip(notes[::2], notes[1::2], strict=True))


class StockClient:
    """adb-shell as it is."""

    def __init__(self, port: int, tool: str) -> None:
        self._device = AdbDeviceTcp("127.0.0.1", port, default_transport_timeout_s=30.0)
        self._device.connect(rsa_keys=[])
        self._tool = tool

    def measure(self, model: bytes) -> None:
        """The same steps."""
        path = "/data/local/tmp/stock.tflite"
        self._device.push(BytesIO(model), path)
        self._shell(QUICK_SCRIPT)
        command = " ".join([self._tool, *block_invocation(VisitSettings().of_visit(SPEC), path, blocks=1).flags])
        self._shell(f"for i in {' '.join(map(str, range(VISITS)))}; do {command}; done\n{QUICK_SCRIPT}")
        self._shell(f"rm {path}")

    def close(self) -> None:
        """Ends the connection."""
        self._device.close()

    def _shell(self, command: str) -> None:
        self._device.shell(command, read_timeout_s=60.0, timeout_s=60.0, transport_timeout_s=60.0)


def main() -> None:
    """Prints both overheads; exits with 1 if ours is above the target, or a candidate was not timed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 candidates instead of 100")
    count = 20 if parser.parse_args().quick else 100
    bundle = os.environ.get("NAS_EDGE_BENCHMARK_BUNDLE")
    with tempfile.TemporaryDirectory() as folder:
        overlay, tool = Path(folder) / "overlay", Path(folder) / "tool"
        overlay.mkdir()
        work = f"echo '{CANNED}'"
        if bundle:
            shutil.copytree(bundle, overlay / "bench")
            loader = next((overlay / "bench/lib").glob("ld-linux-*.so.*")).name
            work = f'/bench/lib/{loader} --library-path /bench/lib /bench/bin/benchmark_model "$@"'
        tool.write_text(tool_script(work))
        with daemon(overlay) as port:
            result = compare(port, tool, models(count)) | distant(port, tool, count // 10)
    result |= {
        "tool": "real" if bundle else "canned",
        "targets": {"overhead_median_ms": TARGET_MS, "round_trips_max": TARGET_ROUND_TRIPS},
        "pass": result["overhead_ms"]["median"] <= TARGET_MS
        and result["round_trips"]["max"] <= TARGET_ROUND_TRIPS
        and set(result["verdicts"]) == {"ok"},
    }
    print(json.dumps(result))
    sys.exit(0 if result["pass"] else 1)


def compare(port: int, tool: Path, candidates: list[bytes]) -> dict[str, Any]:
    """Measures each candidate by both clients, in turn."""
    ours: list[float] = []
    stock: list[float] = []
    verdicts: Counter[str] = Counter()
    visits: list[int] = []
    with (
        AdbShellTransport.tcp("127.0.0.1", port) as notes,
        VisitingAgent(AndroidAgent(AdbShellTransport.tcp("127.0.0.1", port), AndroidSettings(tool=tool))) as agent,
    ):
        agent.measure(small_model(-1), SPEC)
        path = notes.script("ls /data/local/tmp/nas_edge/tools/*/benchmark_model").output.strip()
        client = StockClient(port, path)
        tool_s(notes)
        for model in candidates:
            start_s = time.perf_counter()
            measurement = agent.measure(model, SPEC)
            wall_s = time.perf_counter() - start_s
            verdicts[str(measurement.verdict)] += 1
            visits.append(len(measurement.visits))
            ours.append((wall_s - tool_s(notes)) * 1e3)
            start_s = time.perf_counter()
            client.measure(model)
            wall_s = time.perf_counter() - start_s
            stock.append((wall_s - tool_s(notes)) * 1e3)
        client.close()
    size_kb = statistics.median(len(model) for model in candidates) / 1e3
    print(f"{len(candidates)} candidates of {size_kb:.0f} kB (median); {dict(verdicts)}; visits: {max(visits)}")
    for name, times_ms in (("ours", ours), ("stock adb-shell", stock)):
        print(f"{name:>16}: {describe(times_ms)} ms beyond the tool, per candidate")
    return {
        "benchmark": "adb_overhead",
        "candidates": len(candidates),
        "overhead_ms": describe(ours),
        "stock_overhead_ms": describe(stock),
        "verdicts": dict(verdicts),
        "visits": {"median": statistics.median(visits), "max": max(visits)},
    }


def distant(port: int, tool: Path, count: int) -> dict[str, Any]:
    """Measures candidates on a phone at a distance, and counts round trips."""
    candidates = [small_model(number) for number in range(count)]
    trips: list[int] = []
    times_ms: list[float] = []
    with (
        Proxy(port, DELAY_S) as proxy,
        VisitingAgent(
            AndroidAgent(AdbShellTransport.tcp("127.0.0.1", proxy.port), AndroidSettings(tool=tool))
        ) as agent,
    ):
        agent.measure(small_model(count), SPEC)
        for number, model in enumerate(candidates):
            time.sleep(PAUSE_S * (number % 2))
            before, start_s = proxy.round_trips, time.perf_counter()
            measurement = agent.measure(model, SPEC)
            assert measurement.ok, measurement.detail
            times_ms.append((time.perf_counter() - start_s) * 1e3)
            time.sleep(DELAY_S)  # what ends the stream is on its way
            trips.append(proxy.round_trips - before)
    counted = {"median": statistics.median(trips), "max": max(trips)}
    print(f"at {DELAY_S * 1e3:g} ms in each direction: {counted} round trips, {describe(times_ms)} ms in all")
    return {
        "round_trips": counted,
        "distant_ms": describe(times_ms),
        "delay_ms": DELAY_S * 1e3,
        "distant_candidate_bytes": max(map(len, candidates)),
    }


def small_model(number: int) -> bytes:
    """A model of nearly 256 KiB, of weights that do not pack."""
    rng = np.random.default_rng(number + 1)
    model = conv_model(layers=1, channels=84, side=4)
    weights = rng.integers(0, 256, len(model), np.uint8).tobytes()
    # The weights are the middle of the file.
    return model[:4096] + weights[4096:-8192] + model[-8192:]


def describe(times_ms: list[float]) -> dict[str, float]:
    """Median and spread."""
    low, high = np.percentile(times_ms, [5, 95])
    return {"median": round(statistics.median(times_ms), 1), "p5": round(float(low), 1), "p95": round(float(high), 1)}


if __name__ == "__main__":
    main()

"""Claim: a pool of four devices measures at least 3.7 times as much as one device.

The devices replay recordings and take as long as they say; everything else, from the
queue to the threads, is what real devices would use.

    python -m benchmarks.sharing_cost [--quick]
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial

from device_agents.api import BenchmarkSpec, DeviceInfo, Measurement, Verdict
from device_agents.pool import DevicePool
from device_agents.replay import ReplayAgent, model_key

DEVICES = 4
TARGET_SPEEDUP = 3.7
SERVICE_S = 0.2
# What writing one candidate takes; it must hide behind the measuring of others.
WRITING_S = 0.01


def main() -> None:
    """Measures the same candidates with one device and with four."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="fewer candidates")
    candidates = 40 if parser.parse_args().quick else 200
    one_s = wall_time_s(1, candidates)
    four_s = wall_time_s(DEVICES, candidates)
    speedup = one_s / four_s
    print(
        f"{candidates} candidates of {SERVICE_S} s: 1 device {one_s:.2f} s, "
        f"{DEVICES} devices {four_s:.2f} s, {speedup:.2f} times"
    )
    figures = {
        "benchmark": "sharing_cost",
        "candidates": candidates,
        "one_device_s": one_s,
        "four_devices_s": four_s,
        "one_device_busy_share": candidates * SERVICE_S / one_s,
        "speedup": speedup,
        "targets": {"speedup": TARGET_SPEEDUP},
        "pass": speedup >= TARGET_SPEEDUP,
    }
    print(json.dumps(figures))


def wall_time_s(devices: int, candidates: int) -> float:
    """Returns the seconds a pool of so many devices takes for the candidates."""
    models = [f"candidate {index}".encode() for index in range(candidates)]
    recording = {
        model_key(model): Measurement(Verdict.OK, samples_ms=(1.0 + index,)) for index, model in enumerate(models)
    }
    agents = [ReplayAgent(replay_info(i), recording, SERVICE_S) for i in range(devices)]
    with DevicePool(agents) as pool:
        start_s = time.perf_counter()
        futures = [pool.submit(partial(write, model), BenchmarkSpec()) for model in models]
        answers = [future.result() for future in futures]
        elapsed_s = time.perf_counter() - start_s
    assert [a.latency_ms for a in answers] == [1.0 + index for index in range(candidates)]
    return elapsed_s


def write(model: bytes) -> bytes:
    """Stands for writing a candidate."""
    time.sleep(WRITING_S)
    return model


def replay_info(index: int) -> DeviceInfo:
    """Returns one of several devices of the same kind."""
    return DeviceInfo(
        address=f"replay:{index}",
        kind="replay",
        model="replayed device",
        soc="none",
        cores=1,
        memory_bytes=None,
        os="none",
        runtime="replay",
        runtime_version="1",
    )


if __name__ == "__main__":
    main()

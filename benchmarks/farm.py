"""Claim: four devices at two hosts of a farm measure at least 3.6 times as much as one, and no candidate is lost.

The hosts are nodes of a real Ray cluster on this machine. Their devices replay recordings and take as long as they say;
agents, actors, driver processes and the pool are those of real devices. One device measures some of the candidates,
then four measure them all. Then one host is killed half-way: every candidate must be answered once, with its own
latency, by the devices that are left.

    python -m benchmarks.farm [--quick]

The last line is JSON; "pass" is null where Ray is not installed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.sharing_cost import replay_info
from device_agents.api import BenchmarkSpec, Measurement, Verdict
from device_agents.devices import open_device
from device_agents.pool import DevicePool
from device_agents.replay import model_key, write_recording
from tests.support.farm import Farm, ray_missing

TARGET_SPEEDUP = 3.6
SERVICE_S = 0.2
# What a candidate of mobilenet-v3-like weighs.
MODEL_BYTES = 1 << 20


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer candidates, under a minute")
    candidates = 32 if parser.parse_args().quick else 200
    figures: dict[str, object] = {"benchmark": "farm"}
    if reason := ray_missing():
        print(json.dumps({**figures, "pass": None, "reason": reason}))
        return
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        models = [index.to_bytes(4, "little") * (MODEL_BYTES // 4) for index in range(candidates)]
        recording = {
            model_key(model): Measurement(Verdict.OK, samples_ms=(1.0 + index,), busy_s=SERVICE_S)
            for index, model in enumerate(models)
        }
        files = [Path(folder) / f"{index}.json" for index in range(4)]
        for file in files:
            write_recording(file, replay_info(0), recording)
        farm = stack.enter_context(Farm())
        environ = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in farm.environ.items():
            environ.setenv(name, value)
        hosts = {"bench-1": files[:2], "bench-2": files[2:]}
        for host, offered in hosts.items():
            farm.add(host, [f"replay:{file}" for file in offered])
        addresses = [farm.address(host, f"replay:{file}") for host, offered in hosts.items() for file in offered]
        few = models[: candidates // 4]
        one_s = measure(addresses[:1], few) / len(few)
        four_s = measure(addresses, models) / len(models)
        killed_s = measure(addresses, models, lambda: farm.kill("bench-2"))
    speedup = one_s / four_s
    print(f"a candidate of {SERVICE_S} s: 1 device {one_s:.3f} s, 4 devices {four_s:.3f} s, {speedup:.2f} times")
    print(f"with a host killed half-way: {candidates} candidates answered once each, in {killed_s:.1f} s")
    passed = speedup >= TARGET_SPEEDUP
    figures |= {
        "candidates": candidates,
        "model_bytes": MODEL_BYTES,
        "one_device_s": one_s,
        "four_devices_s": four_s,
        "one_device_busy_share": SERVICE_S / one_s,
        "speedup": speedup,
        "answered_with_a_host_killed": candidates,
        "with_a_host_killed_s": killed_s,
        "targets": {"speedup": TARGET_SPEEDUP},
    }
    print(json.dumps({**figures, "pass": passed}))
    sys.exit(0 if passed else 1)


def measure(addresses: Sequence[str], models: Sequence[bytes], half_way: Callable[[], None] = lambda: None) -> float:
    """Measures models on devices and returns how many seconds that took, without opening them.

    Args:
        addresses: The devices.
        models: All of those that were recorded, or the first of them.
        half_way: Is called when half of them are answered.

    Raises:
        RuntimeError: If one is not answered, or not with what was recorded of it, or answers were counted twice.
    """
    with DevicePool([open_device(address) for address in addresses]) as pool:
        began_s = time.perf_counter()
        futures = [pool.submit(model, BenchmarkSpec()) for model in models]
        futures[len(models) // 2].result()
        half_way()
        found = [future.result().latency_ms for future in futures]
        elapsed_s = time.perf_counter() - began_s
        counted = sum(status.measured for status in pool.status())
    if found != [1.0 + index for index in range(len(models))] or counted != len(models):
        raise RuntimeError(f"{len(models)} candidates, {counted} answers counted: {found}")
    return elapsed_s


if __name__ == "__main__":
    main()

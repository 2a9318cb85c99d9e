"""A real Ray cluster on this machine, with hosts that offer devices; `python -m tests.support.farm` holds it.

Ray's own `Cluster` starts the processes of each host, and kills them. It runs in a process of its own, so that nothing
here loads Ray, and ends with its stdin.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).parents[2]
TOKEN = "5f" * 32
# Ray takes half a minute to believe that a host is gone, which is long for a test.
_QUICK = {
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "4",
}


def ray_missing() -> str:
    """Why there is no farm, or ""."""
    return "" if find_spec("ray") is not None else "needs Ray (pip install 'nas-edge[farm]')"


class Farm:
    """A cluster whose head node offers nothing.

    Args:
        site: A folder for the module path of the hosts, for device schemes that are made up; None for none.
    """

    def __init__(self, site: Path | None = None) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT), str(site or ""), os.environ.get("PYTHONPATH", "")]))
        self._folder = tempfile.TemporaryDirectory(prefix="farm-")  # short: sockets lie in it
        environ = {
            **os.environ,
            **_QUICK,
            "PYTHONPATH": path,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "RAY_TMPDIR": self._folder.name,
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.farm"],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.head = str(self._ask({"do": "head"}))

    @property
    def environ(self) -> dict[str, str]:
        """What reaches this cluster as the one this machine has joined."""
        return {
            "RAY_ADDRESS": self.head,
            "RAY_AUTH_TOKEN": TOKEN,
            "RAY_TMPDIR": self._folder.name,
        }

    def add(self, node: str, devices: Sequence[str]) -> None:
        """Starts a host that offers devices."""
        self._ask({"do": "add", "node": node, "devices": list(devices)})

    def kill(self, node: str) -> None:
        """Kills all of a host's processes."""
        self._ask({"do": "kill", "node": node})

    def address(self, node: str, device: str) -> str:
        """Returns the address of a device."""
        return f"farm://{self.head}/{node}/{device}"

    def close(self) -> None:
        """Ends all hosts."""
        self._process.communicate()
        self._folder.cleanup()

    def __enter__(self) -> Farm:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _ask(self, request: Mapping[str, Any]) -> object:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the Ray cluster does not start")
        return json.loads(line)


def _kill(cluster: Any, node: Any) -> None:
    """Ends a host as a power cut would: what runs there lives on for seconds after Ray's own process is killed."""
    import psutil  # comes with Ray

    parents = [psutil.Process(info.process.pid) for infos in node.all_processes.values() for info in infos]
    everything = [*parents, *(child for parent in parents for child in parent.children(recursive=True))]
    for process in everything:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    cluster.remove_node(node, allow_graceful=False)


def main() -> None:
    """Holds a cluster until stdin ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from ray.cluster_utils import Cluster

    common = {"num_cpus": 0, "object_store_memory": 80_000_000, "include_dashboard": False}
    cluster, nodes = Cluster(), {}
    try:
        head = cluster.add_node(node_name="head", **common)
        for line in sys.stdin:
            request = cast("dict[str, Any]", json.loads(line))
            if request["do"] == "add":
                offered = {f"nas_edge:{device}": 1 for device in request["devices"]}
                nodes[request["node"]] = cluster.add_node(node_name=request["node"], resources=offered, **common)
            elif request["do"] == "kill":
                _kill(cluster, nodes.pop(request["node"]))
            print(json.dumps(head.address), file=out, flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()

"""What stays on a phone, how it is listed and how it is removed.

In /data/local/tmp/nas_edge:

    tools/HASH/benchmark_model
    tools/probes/model-HASH.tflite
    lock/                            while somebody measures
    run-COMPUTER-RUN/                only while a run lasts, or until the next one if it crashed
"""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass

from device_agents.android.claim import BASE, PhoneClaim
from device_agents.android.state import info_of, read_identity
from device_agents.android.tool import TOOLS
from device_agents.android.transport import Transport
from device_agents.errors import DeviceUnavailableError
from device_agents.floors import FloorStore, default_floors
from device_agents.probe_models import PROBE_MODELS

PROBES = f"{TOOLS}/probes"
"""The folder of the probe models; content-addressed, as the tools are."""

# A size in bytes and a name for each file; names of other forms are not ours.
_LIST = 'cd "$1" 2>/dev/null && find . -type f -exec stat -c "%s %n" {} +; :'
_REMOVE = 'rm -rf "$1/tools" "$1"/run-*'
# Prints the probe models that are whole, and removes the others.
CHECK_PROBES = """
for f in "$1"/*; do
  name=${f##*/model-}
  name=${name%.tflite}
  sum=$(sha256sum < "$f" 2>/dev/null)
  if [ "${#name}" = 16 ] && [ -z "${sum##"$name"*}" ] && [ -n "$sum" ]; then
    stat -c "${sum%% *} %s" "$f"
  else
    rm -rf "$f"
  fi
done
:
"""
LOCK = "lock"
_KINDS = (
    (r"\./tools/[0-9a-f]{16}/benchmark_model", "benchmark_model"),
    (r"\./tools/probes/model-[0-9a-f]{16}\.tflite", "probe models"),
    (r"\./lock/owner-[\w-]{1,64}", LOCK),
    (r"\./run-[\w-]{1,64}/.*", "files of runs"),
    (r".*", "other files"),
)


@dataclass(frozen=True)
class Stored:
    """Files of one kind on a phone.

    Attributes:
        kind: What they are.
        count: How many.
        size_bytes: Of all of them.
    """

    kind: str
    count: int
    size_bytes: int

    def __str__(self) -> str:
        size = f"{self.size_bytes / 2**20:.1f} MiB" if self.size_bytes >= 2**20 else f"{self.size_bytes / 1024:.0f} KiB"
        return f"{self.kind}: {self.count} ({size})"


@functools.cache
def probe_digests() -> frozenset[str]:
    """Returns the SHA-256 of the models that stay on a phone; none where this machine cannot make them."""
    try:
        return frozenset(hashlib.sha256(model()).hexdigest() for model in PROBE_MODELS.values())
    except DeviceUnavailableError:
        return frozenset()


def read_probes(output: str) -> dict[str, int]:
    """Reads what `CHECK_PROBES` printed: sizes in bytes by SHA-256."""
    lines = re.findall(r"^([0-9a-f]{64}) (\d{1,12})$", output, re.MULTILINE)
    return {sha256: int(size_bytes) for sha256, size_bytes in lines}


def stored_on(transport: Transport) -> list[Stored]:
    """Returns what lies on a phone.

    Raises:
        DeviceUnavailableError: If it does not answer.
    """
    lines = re.findall(r"^(\d{1,15}) (\./.{1,900})$", transport.script(_LIST, BASE).output, re.MULTILINE)
    sizes: dict[str, list[int]] = {}
    for size_bytes, name in lines:
        kind = next(kind for form, kind in _KINDS if re.fullmatch(form, name))
        sizes.setdefault(kind, []).append(int(size_bytes))
    return [Stored(kind, len(sizes[kind]), sum(sizes[kind])) for _, kind in _KINDS if kind in sizes]


def remove_stored(transport: Transport) -> list[str]:
    """Removes all of it, unless somebody is measuring; what the user put on the phone himself stays.

    Returns:
        What was removed, a line for each kind.

    Raises:
        DeviceUnavailableError: If the phone does not answer, or somebody measures on it.
    """
    with PhoneClaim(transport):
        found = [one for one in stored_on(transport) if one.kind != LOCK]
        done = transport.script(_REMOVE, BASE, timeout_s=30.0)
        if done.exit_code != 0:
            raise DeviceUnavailableError(f"{BASE} cannot be removed on {transport.address}: {done.last_line}")
        left = {one.kind for one in stored_on(transport)}
    transport.script('rmdir "$1" 2>/dev/null; :', BASE)
    return [str(one) for one in found if one.kind not in left]


def forget_phone(transport: Transport) -> list[str]:
    """Removes all that lies on a phone, and what is kept of it on this machine; as `remove_stored`."""
    removed = remove_stored(transport)
    floors = default_floors()
    count = FloorStore(floors).forget(info_of(transport.address, read_identity(transport), ""))
    return [*removed, *([f"{count} undisturbed times of the probes, kept in {floors}"] if count else [])]

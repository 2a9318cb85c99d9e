"""The scheme of a farm's devices. What talks to Ray is started when it is needed."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from device_agents.api import DeviceAgent
from device_agents.checks import Check
from device_agents.errors import DeviceAddressError, DeviceError
from device_agents.farm.address import address_problem, joined_cluster, read_address
from device_agents.files import write_atomically
from device_agents.scheme import DeviceRow, Scheme, Setup


def _open(rest: str) -> DeviceAgent:
    from device_agents.farm.remote import open_farm

    _check_installed()
    return open_farm(read_address(rest))


def _check_installed() -> None:
    if find_spec("ray") is None:
        raise DeviceAddressError(
            "Ray, which reaches the devices of a farm, is not installed", fix="run: pip install 'nas-edge[farm]'"
        )


def _list() -> Sequence[DeviceRow]:
    """What the hosts of the cluster offer that this machine is part of; nothing where it is part of none."""
    from device_agents.farm.remote import list_farm

    if find_spec("ray") is None or not joined_cluster():
        return ()
    rows = list_farm()
    _remember([row.address.partition(":")[2] for row in rows])
    return rows


def _doctor(rest: str) -> Sequence[Check]:
    from device_agents.farm.remote import examine_at_host

    try:
        _check_installed()
    except DeviceError as error:
        return [Check("ray", "fail", error.what, error.fix or "")]
    return examine_at_host(read_address(rest))


def _set_up(rest: str, options: Mapping[str, str]) -> Sequence[tuple[str, str]]:
    from device_agents.farm.remote import set_up_at_host

    _check_installed()
    return set_up_at_host(read_address(rest), options)


def _clean(rest: str) -> Sequence[str]:
    from device_agents.farm.remote import clean_at_host

    _check_installed()
    return clean_at_host(read_address(rest))


# At TAB no cluster is asked: what it offered when it was last listed is offered again.


def _remembered() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "nas_edge" / "farm.json"


def _remember(devices: Sequence[str]) -> None:
    with contextlib.suppress(OSError):  # nothing is offered then
        write_atomically(_remembered(), json.dumps(sorted(devices)).encode())


def _complete(_: str) -> Sequence[str]:
    try:
        found = json.loads(_remembered().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return ()
    rows = found if isinstance(found, list) else []
    return [rest for rest in rows if isinstance(rest, str) and not address_problem(rest)]


SCHEMES = (
    Scheme(
        name="farm",
        form="farm:NODE/DEVICE",
        what="a device at another host of a lab, over Ray",
        open=_open,
        problem=address_problem,
        list=_list,
        doctor=_doctor,
        setup=Setup(_set_up),
        complete=_complete,
        clean=_clean,
    ),
)

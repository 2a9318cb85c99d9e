"""What of a farm needs no Ray: its addresses, and what the actor answers."""

from __future__ import annotations

import io

import pytest

from device_agents.devices import list_devices, open_device
from device_agents.errors import DeviceAddressError, DeviceUnavailableError
from device_agents.farm.actor import DeviceActor
from device_agents.farm.address import FarmAddress, address_problem, read_address
from device_agents.farm.driver import check_protocol
from device_agents.worker.frames import Frame, encode_frame, read_frame


def asked(actor: DeviceActor, header: dict[str, object]) -> Frame:
    answer = read_frame(io.BytesIO(actor.answer(encode_frame(Frame(header)))).read)
    assert answer is not None
    return answer


def test_an_actor_serves_what_its_host_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.setpriority", lambda *_: None, raising=False)  # this process stays as nice as it is
    actor = DeviceActor()
    check_protocol(asked(actor, {"do": "hello"}), "bench-1")
    assert asked(actor, {"do": "info"}).header["raised"]["kind"] == "DeviceUnavailableError"
    assert asked(actor, {"do": "open", "address": "host:"}).header["opened"] is True
    assert asked(actor, {"do": "info"}).header["info"]["kind"] == "host"
    assert asked(actor, {"do": "close"}).header["opened"] is False


def test_a_host_with_another_protocol_is_refused_with_the_fix() -> None:
    said = r"bench-1 speaks another protocol; expected version \d+, received 3; install the same version of nas_edge"
    with pytest.raises(DeviceUnavailableError, match=said):
        check_protocol(Frame({"done": "hello", "protocol": 3}), "bench-1")


@pytest.mark.parametrize(
    ("rest", "address"),
    [
        ("bench-1/adb:R58M", FarmAddress("bench-1", "adb:R58M")),
        ("10.0.0.7/host:", FarmAddress("10.0.0.7", "host:")),
        ("b/ssh://pi@board:22?python=/usr/bin/python3", FarmAddress("b", "ssh://pi@board:22?python=/usr/bin/python3")),
        ("//10.0.0.1/b/adb://10.0.0.9:5555", FarmAddress("b", "adb://10.0.0.9:5555", "10.0.0.1:6379")),
        ("//[fd00::1]:7000/b/host:", FarmAddress("b", "host:", "[fd00::1]:7000")),
    ],
)
def test_addresses(rest: str, address: FarmAddress) -> None:
    assert read_address(rest) == address
    assert read_address(address.rest) == address


@pytest.mark.parametrize(
    "rest", ["", "host:", "bench-1", "bench-1/", "/host:", "a b/host:", "//", "//x", "b/farm:c/host:"]
)
def test_malformed_addresses(rest: str) -> None:
    assert address_problem(rest)


def test_without_ray_there_is_no_farm_and_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_agents.farm.scheme.find_spec", lambda name: None)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert [row for row in list_devices() if row.kind == "farm"] == []
    with pytest.raises(DeviceAddressError, match=r"Ray, .* is not installed; run: pip install 'nas-edge\[farm\]'"):
        open_device("farm:bench-1/host:")

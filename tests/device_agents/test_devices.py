from __future__ import annotations

from pathlib import Path

import pytest

from device_agents.devices import list_devices, open_device
from device_agents.errors import DeviceAddressError
from device_agents.host import HostAgent


@pytest.mark.parametrize("address", ["host:", "host"])
def test_host_addresses_open_the_host(address: str) -> None:
    with open_device(address) as agent:
        assert isinstance(agent, HostAgent)
        assert agent.info().measures_on_host


@pytest.mark.parametrize("address", ["", "hots:", "host:1", "HOST:", " host:", ":", "phone", "replay:"])
def test_unknown_addresses_are_refused_with_the_valid_forms(address: str) -> None:
    with pytest.raises(DeviceAddressError, match=r"host:|replay:TIMES\.json") as caught:
        open_device(address)
    assert repr(address) in str(caught.value)
    assert len(str(caught.value)) < 310


def test_of_a_known_scheme_only_its_own_form_is_told() -> None:
    with pytest.raises(DeviceAddressError, match=r"expected host: \(this machine\)") as caught:
        open_device("host:1")
    assert "adb" not in str(caught.value)
    with pytest.raises(DeviceAddressError, match=r"expected host:, adb:.*`nas-edge devices`"):
        open_device("phone")


def test_a_missing_or_malformed_recording_is_an_address_error(tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    for text in ("", "[]", "{}", '{"schema": 2}', '{"schema": 1, "measurements": {"a": {}}}'):
        bad.write_text(text)
        with pytest.raises(DeviceAddressError, match="recording"):
            open_device(f"replay:{bad}")
    with pytest.raises(DeviceAddressError, match="Cannot read"):
        open_device(f"replay:{tmp_path / 'none.json'}")


def test_the_list_of_devices_shows_this_machine_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_agents.android.listing.list_phones", list)
    (row,) = list_devices()
    assert (row.address, row.kind, row.state) == ("host:", "host", "ready")
    assert "ai_edge_litert" in row.detail or "tflite_runtime" in row.detail

"""Energy by the counters of a CPU, read from files laid out as Linux has them (powercap, intel-rapl)."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_agents.worker.energy import SOURCE, EnergyMeter
from device_agents.worker.measure import Outcome, metered

RANGE_UJ = 262_143_328_850  # of a real package


def write_zone(root: Path, zone: str, name: str, energy_uj: object, range_uj: int | None = RANGE_UJ) -> Path:
    folder = root / "sys/class/powercap" / zone
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{name}\n")
    if range_uj is not None:
        (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    return folder / "energy_uj"


def test_the_packages_alone_are_counted_and_a_counter_may_begin_again(tmp_path: Path) -> None:
    first = write_zone(tmp_path, "intel-rapl:0", "package-0", RANGE_UJ - 1_000)
    second = write_zone(tmp_path, "intel-rapl:1", "package-1", 5_000)
    others = [
        write_zone(tmp_path, "intel-rapl:0:0", "core", 0),
        write_zone(tmp_path, "intel-rapl:2", "psys", 0),
        write_zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0),
    ]
    meter = EnergyMeter(tmp_path)
    before = meter.read()
    assert before == [RANGE_UJ - 1_000, 5_000]
    first.write_text("2000\n")
    second.write_text("9000\n")
    for other in others:
        other.write_text("777000000\n")
    assert meter.since(before) == pytest.approx((3_000 + 4_000) / 1e3)
    assert meter.note == SOURCE


def test_the_energy_of_a_run_is_the_mean_over_those_that_were_timed(tmp_path: Path) -> None:
    counter = write_zone(tmp_path, "intel-rapl:0", "package-0", 10_000)
    outcome = Outcome()
    with metered(EnergyMeter(tmp_path), outcome):
        outcome.samples_ms += [1.0] * 4
        counter.write_text("18000\n")
    assert (outcome.energy_mj, outcome.energy_note) == (2.0, SOURCE)
    still = Outcome(samples_ms=[1.0])
    with metered(EnergyMeter(tmp_path), still):
        pass
    assert (still.energy_mj, still.energy_note) == (None, "the CPU's energy counters stood still")
    with metered(None, silent := Outcome(samples_ms=[1.0])):
        counter.write_text("20000\n")
    assert (silent.energy_mj, silent.energy_note) == (None, "")


def test_where_nothing_can_be_read_there_is_no_number_but_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = EnergyMeter(tmp_path)
    assert bare.read() is None
    assert bare.since([0]) is None
    assert bare.note == "this machine has no energy counters (/sys/class/powercap/intel-rapl:*)"
    counter = write_zone(tmp_path, "intel-rapl:0", "package-0", 1)
    assert "accelerator" in EnergyMeter(tmp_path, accelerator=True).note
    read_text = Path.read_text

    def for_root_only(self: Path, *arguments: object, **options: object) -> str:
        if self == counter:
            raise PermissionError(13, "Permission denied")
        return read_text(self, *arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", for_root_only)
        forbidden = EnergyMeter(tmp_path)
    assert forbidden.read() is None
    file = "/sys/class/powercap/intel-rapl:0/energy_uj"
    assert forbidden.note.startswith(f"{file}: Permission denied; ")
    assert forbidden.note.endswith(f"sudo chmod a+r {file}")
    for damaged in ("", "much", "-1"):
        meter = EnergyMeter(tmp_path)
        counter.write_text(damaged)
        assert meter.since([1]) is None
    write_zone(tmp_path, "intel-rapl:0", "package-0", 1, range_uj=None)
    (counter.parent / "max_energy_range_uj").unlink()
    assert "max_energy_range_uj" in EnergyMeter(tmp_path).note

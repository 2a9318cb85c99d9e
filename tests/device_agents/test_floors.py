"""Floors of probes: kept across sessions, until they expire; a file that cannot be used is as good as none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agents.api import PRESETS, DeviceInfo
from device_agents.floors import EXPIRE_AFTER, FloorKey, FloorStore, KeptFloor, default_floors, forget_floors

NOW = datetime(2024, 2, 29, 12, tzinfo=timezone.utc)
KEY = FloorKey("a1", "litert 2", 1, "cpu", (3,))
FLOORS = {"compute": 0.8, "memory": 4.25}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "not" / "there" / "yet" / "floors.json"


def test_what_is_kept_is_read_by_another_session(file: Path) -> None:
    FloorStore(file).keep(KEY, FLOORS, NOW)
    assert FloorStore(file).read(KEY, NOW) == FLOORS
    FloorStore(file).keep(KEY, {"memory": 4.0}, NOW)
    assert FloorStore(file).read(KEY, NOW) == {"compute": 0.8, "memory": 4.0}


def test_floors_serve_only_the_device_and_the_settings_they_are_of(file: Path) -> None:
    FloorStore(file).keep(KEY, FLOORS, NOW)
    others = ({"device": "b2"}, {"runtime": "litert 3"}, {"threads": 2}, {"delegate": "gpu"}, {"cores": None})
    for other in others:
        assert FloorStore(file).read(replace(KEY, **other), NOW) == {}


def test_floors_expire_each_in_its_own_time(file: Path) -> None:
    store, second = FloorStore(file), timedelta(seconds=1)
    store.keep(KEY, {"compute": 0.8}, NOW)
    store.keep(KEY, {"memory": 4.25}, NOW + timedelta(hours=1))
    assert store.read(KEY, NOW + EXPIRE_AFTER - second) == FLOORS
    assert store.read(KEY, NOW + EXPIRE_AFTER) == {"memory": 4.25}
    store.keep(replace(KEY, device="b2"), {"compute": 2.0}, NOW + EXPIRE_AFTER)
    assert "0.8" not in file.read_text(), "what has expired is not written again"


def test_floors_of_a_clock_that_was_wrong_do_not_last_for_ever(file: Path) -> None:
    FloorStore(file).keep(KEY, FLOORS, NOW + timedelta(days=3650))
    assert FloorStore(file).read(KEY, NOW) == {}
    FloorStore(file).keep(replace(KEY, device="b2"), {"compute": 2.0}, NOW)
    assert "4.25" not in file.read_text()


def entry(key: object, floors: object) -> str:
    return json.dumps({"schema": 1, "floors": {key if isinstance(key, str) else json.dumps(key): floors}})


GOOD_KEY = ["a1", "litert 2", 1, "cpu", [3]]
GOOD_FLOORS = {"compute": [0.8, NOW.isoformat()]}


def test_the_damaged_files_below_would_be_read_if_they_were_whole(file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(entry(GOOD_KEY, GOOD_FLOORS))
    assert FloorStore(file).read(KEY, NOW) == {"compute": 0.8}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\0" * 100,
        entry(GOOD_KEY, GOOD_FLOORS)[:-9],
        "[]",
        '{"schema": 1}',
        '{"schema": 2, "floors": {}}',
        '{"schema": 1, "floors": []}',
        "[" * 100_000,
        entry("[]", GOOD_FLOORS),
        entry('"abcde"', GOOD_FLOORS),
        entry([["a1"], "litert 2", 1, "cpu", None], GOOD_FLOORS),
        entry(["a1", "litert 2", "1", "cpu", None], GOOD_FLOORS),
        entry(["a1", "litert 2", 1, "cpu", 3], GOOD_FLOORS),
        entry(["a1", "litert 2", 1, "cpu", ["3"]], GOOD_FLOORS),
        entry(GOOD_KEY, []),
        entry(GOOD_KEY, {"compute": 0.8}),
        entry(GOOD_KEY, {"compute": [0.8, NOW.isoformat(), 1]}),
        entry(GOOD_KEY, {"compute": [0.8, 1709208000]}),
        entry(GOOD_KEY, {"compute": [0.8, "2024-02-29T12:00:00"]}),
        entry(GOOD_KEY, {"compute": [0.8, "yesterday"]}),
        *(entry(GOOD_KEY, {"compute": [bad, NOW.isoformat()]}) for bad in (0, -1, 1e12, None, "fast", 10**400)),
        entry(GOOD_KEY, GOOD_FLOORS).replace("0.8", "NaN"),
        entry(GOOD_KEY, GOOD_FLOORS) + " " * (5 << 20),
    ],
    ids=lambda content: content[:60],
)
def test_a_damaged_file_is_as_good_as_none_and_is_replaced(file: Path, info: DeviceInfo, content: str) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(content)
    store = FloorStore(file)
    assert store.read(KEY, NOW) == {}
    assert store.kept(info, NOW) == []
    assert store.forget(info) == 0
    store.keep(KEY, FLOORS, NOW)
    assert store.read(KEY, NOW) == FLOORS


@pytest.mark.parametrize("year", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_the_ends_of_the_calendar_are_dates_like_others(file: Path, year: str) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(entry(GOOD_KEY, {"compute": [0.8, year]}))
    assert FloorStore(file).read(KEY, NOW) == {}


_WRITER = """
import sys
from pathlib import Path
from device_agents.floors import FloorKey, FloorStore
store = FloorStore(Path(sys.argv[1]))
for i in range(40):
    store.keep(FloorKey(sys.argv[2], "litert", i, "cpu", None), {"compute": 1.0 + i})
"""


def test_two_writers_at_the_same_time_lose_nothing_of_each_other(file: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", _WRITER, str(file), name]) for name in ("one", "two")]
    seen: set[str] = set()
    while any(writer.poll() is None for writer in writers):
        if file.exists():
            seen |= set(json.loads(file.read_text())["floors"])  # whole at every moment
    assert [writer.returncode for writer in writers] == [0, 0]
    for name in ("one", "two"):
        found = [FloorStore(file).read(FloorKey(name, "litert", i, "cpu", None)) for i in range(40)]
        assert found == [{"compute": 1.0 + i} for i in range(40)]
    assert {path.name for path in file.parent.iterdir()} == {"floors.json", ".floors.json.lock"}


@pytest.mark.parametrize("made", ["file for a folder", "folder for a file", "read-only folder"])
def test_where_nothing_can_be_written_nothing_is_kept_and_nothing_raised(
    tmp_path: Path, info: DeviceInfo, made: str
) -> None:
    file = tmp_path / "state" / "floors.json"
    if made == "file for a folder":
        file.parent.write_text("")
    elif made == "folder for a file":
        (file / "below").mkdir(parents=True)
    else:
        file.parent.mkdir()
        file.parent.chmod(0o500)
        if os.access(file.parent, os.W_OK):
            pytest.skip("may write everywhere")
    store = FloorStore(file)
    store.keep(KEY, FLOORS, NOW)
    assert store.read(KEY, NOW) == {}
    assert store.forget(info) == 0
    assert forget_floors(info, store) == []
    left = set(tmp_path.rglob(".floors.*")) - {file.parent / ".floors.json.lock"}
    assert left == set(), "nothing half written is left"


def test_without_a_file_nothing_is_kept(info: DeviceInfo) -> None:
    store = FloorStore(None)
    store.keep(KEY, FLOORS, NOW)
    assert (store.read(KEY, NOW), store.kept(info, NOW), store.forget(info)) == ({}, [], 0)


def test_a_device_is_forgotten_and_the_others_are_not(file: Path, info: DeviceInfo) -> None:
    store, other = FloorStore(file), replace(info, model="another CPU")
    for device, threads in ((info, 1), (info, 2), (other, 1)):
        spec = PRESETS["search"].replace(threads=threads, cores=(threads,))
        store.keep(FloorKey.of(device, spec), FLOORS, NOW)
    assert store.kept(info, NOW) == [
        KeptFloor("compute", 0.8, NOW, 1, (1,)),
        KeptFloor("memory", 4.25, NOW, 1, (1,)),
        KeptFloor("compute", 0.8, NOW, 2, (2,)),
        KeptFloor("memory", 4.25, NOW, 2, (2,)),
    ]
    assert store.kept(info, NOW + EXPIRE_AFTER) == []
    (line,) = forget_floors(info, store)
    assert line.startswith("4 ")
    assert str(file) in line
    assert (store.kept(info, NOW), forget_floors(info, store)) == ([], [])
    assert len(store.kept(other, NOW)) == 2


def test_by_default_they_are_below_the_users_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_floors() == tmp_path / "nas_edge" / "floors.json"
    monkeypatch.delenv("XDG_STATE_HOME")
    assert default_floors() == Path.home() / ".local" / "state" / "nas_edge" / "floors.json"


_NAMES = st.text(max_size=20)
_CORES = st.none() | st.lists(st.integers(0, 10**6), max_size=4).map(tuple)
_KEYS = st.builds(FloorKey, _NAMES, _NAMES, st.integers(1, 256), _NAMES, _CORES)
_TIMES = st.floats(min_value=1e-6, max_value=1e8, allow_nan=False)


@given(st.dictionaries(_KEYS, st.dictionaries(_NAMES, _TIMES, min_size=1, max_size=3), max_size=4))
def test_any_floors_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, every: dict) -> None:  # type: ignore[type-arg]
    store = FloorStore(tmp_path_factory.mktemp("floors") / "floors.json")
    for key, floors_ms in every.items():
        store.keep(key, floors_ms, NOW)
    assert {key: store.read(key, NOW) for key in every} == every

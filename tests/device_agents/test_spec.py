from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agents.api import PRESETS, BenchmarkSpec, Delegate, parse_cores
from device_agents.errors import DeviceError, SpecError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(("preset", "runs", "seconds"), [("rapid", 64, 6), ("quick", 128, 10), ("full", 1024, 60)])
def test_presets_have_the_counts_and_durations_of_mlperf_mobile(preset: str, runs: int, seconds: float) -> None:
    assert PRESETS[preset].min_runs == runs
    assert PRESETS[preset].min_duration_s == seconds


@pytest.mark.parametrize("name", PRESETS)
def test_spec_survives_json(name: str) -> None:
    spec = PRESETS[name].replace(cores=(1, 0), input_shapes={"x": [1, 2]})
    assert BenchmarkSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    "change",
    [
        {"threads": 0},
        {"threads": True},
        {"threads": 1.5},
        {"min_runs": 10, "max_runs": 5},
        {"min_duration_s": 3.0, "max_duration_s": 1.0},
        {"target_relative_half_width": 0.0},
        {"target_relative_half_width": float("nan")},
        {"max_relative_half_width": 0.001},
        {"delegate": "npu"},
        {"cores": ()},
        {"cores": (-1,)},
        {"cores": "0"},
        {"input_shapes": {"x": (0,)}},
        {"input_shapes": 5},
        {"input_shapes": {"x": 3}},
        {"timeout_s": 0},
        {"timeout_s": float("inf")},
        {"profile_ops": "yes"},
        {"memory_limit_bytes": 0},
        {"unheard_of": 1},
    ],
)
def test_senseless_settings_are_refused_with_what_was_received(change: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="received"):
        PRESETS["search"].replace(**change)


@given(st.dictionaries(st.sampled_from([*PRESETS["search"].to_json(), "other"]), json_values))
def test_hostile_settings_raise_nothing_but_spec_errors(data: dict[str, Any]) -> None:
    try:
        spec = BenchmarkSpec.from_json({**PRESETS["search"].to_json(), **data})
    except SpecError:
        return
    assert BenchmarkSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_settings_of_another_version_are_refused() -> None:
    with pytest.raises(SpecError, match="schema 1"):
        BenchmarkSpec.from_json({"threads": 1})


def test_settings_hash_changes_with_what_changes_the_number_only() -> None:
    spec = PRESETS["search"]
    assert spec.settings_hash == BenchmarkSpec.from_json(spec.to_json()).settings_hash
    assert spec.replace(threads=2).settings_hash != spec.settings_hash
    assert spec.replace(cores=(0,)).settings_hash != spec.settings_hash
    assert spec.replace(timeout_s=5.0, max_attempts=9).settings_hash == spec.settings_hash
    longer = spec.replace(max_duration_s=9.0, max_runs=9999, target_relative_half_width=0.001)
    assert longer.settings_hash == spec.settings_hash


def test_spec_error_belongs_to_the_one_tree() -> None:
    assert issubclass(SpecError, DeviceError)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cpu", Delegate("cpu")),
        ("gpu+cpu", Delegate("gpu", partial=True)),
        ("external:/a/lib.so", Delegate("external", library="/a/lib.so")),
        ("external+cpu:lib.so,a=1,b=x=y", Delegate("external", True, "lib.so", (("a", "1"), ("b", "x=y")))),
    ],
)
def test_delegates_are_read(text: str, expected: Delegate) -> None:
    assert Delegate.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "npu",
        "cpu+cpu",
        "none+cpu",
        "gpu:/lib.so",
        "external",
        "external:",
        "external:l,a",
        "external:l,a=1;b",
        "gpu+",
    ],
)
def test_anything_else_is_no_delegate(text: str) -> None:
    with pytest.raises(SpecError, match="Unknown delegate"):
        BenchmarkSpec(delegate=text)


@pytest.mark.parametrize(
    ("text", "cores"),
    [("big", "big"), ("4-6,1", (1, 4, 5, 6)), ("0", (0,)), ("0xf0", (4, 5, 6, 7)), ("0X1", (0,))],
)
def test_cores_are_read(text: str, cores: object) -> None:
    assert parse_cores(text) == cores


@pytest.mark.parametrize("text", ["", "f0", "0x", "0x0", "5-4", "1,", "-1", "all", "0xf0; reboot", "99999", "1 2"])
def test_anything_else_is_no_choice_of_cores(text: str) -> None:
    with pytest.raises(SpecError, match="expected cores"):
        parse_cores(text)


def test_what_only_accepts_or_refuses_does_not_make_another_setting() -> None:
    spec = BenchmarkSpec()
    assert spec.replace(require_cool=True, require_charged=True).settings_hash == spec.settings_hash
    assert spec.replace(delegate="gpu").settings_hash != spec.replace(delegate="gpu+cpu").settings_hash

"""Errors of Python's in messages for people."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from device_agents.api import PRESETS
from device_agents.errors import DeviceAddressError, DeviceError
from device_agents.pool import DevicePool
from device_agents.replay import ReplayAgent
from device_agents.wording import what_happened, words_of
from tests.support.agents import FunctionAgent, steady


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("too\nlong"), "too long"),
        (KeyError("device"), "'device' is missing"),
        (FileNotFoundError(2, "No such file"), "No such file"),
        (RuntimeError(), "no reason given"),
        (KeyError(), "an entry is missing"),
        (TimeoutError(), "no reason given"),
        (SystemExit("no GPU"), "it ended the program (no GPU)"),
    ],
)
def test_words(error: BaseException, words: str) -> None:
    assert words_of(error) == words
    assert type(error).__name__ not in words_of(error)


def test_what_happened_is_all_but_the_fix() -> None:
    error = DeviceError("It broke. Twice", expected="one", received="two", fix="mend it")
    assert what_happened(error) == "It broke. Twice; expected one, received two"


def test_no_class_of_an_error_is_in_what_users_read(tmp_path: Path) -> None:
    def no_bytes() -> bytes:
        raise ValueError("the writer refuses it")

    with DevicePool([FunctionAgent(lambda model, spec: steady(1.0))]) as pool:
        assert pool.submit(no_bytes, PRESETS["search"]).result().detail == "the writer refuses it"
    file = tmp_path / "recording.json"
    file.write_text(json.dumps({"schema": 1, "measurements": {}}))
    with pytest.raises(DeviceAddressError) as refusal:
        ReplayAgent.from_file(file)
    assert "Error" not in str(refusal.value)

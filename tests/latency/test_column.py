"""Latencies from a column of the table that is searched."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_agents.api import Verdict
from nas_edge.errors import ConfigError
from nas_edge.latency import LATENCY_SOURCES, LatencyContext, LatencySettings, open_latency_source
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.latency.source import Candidate
from nas_edge.spaces.decisions import Architecture
from nas_edge.spaces.table import TableSpace
from tests.support.spaces import small_space
from tests.support.tables import open_space, write_table


def ask(space: TableSpace, text: str, *choices: int) -> LatencyAnswer:
    settings = LATENCY_SOURCES.settings(text)
    assert isinstance(settings, LatencySettings)
    assert settings.text == text
    architecture = Architecture(choices)
    with open_latency_source(settings, LatencyContext(space, "int8", None)) as source:
        assert source.name == f"column 'phone_ms' of {space.table.name}"
        return source.submit(Candidate(space.build(architecture), architecture)).result(timeout=10)


def test_a_value_is_looked_up_and_says_so(tmp_path: Path) -> None:
    space = open_space(write_table(tmp_path))
    assert ask(space, "column:phone_ms", 0, 1) == LatencyAnswer.estimated(LatencyKind.LOOKED_UP, 4.2)
    assert ask(space, "column:phone_ms", 2, 0).latency_ms == 1.0


@pytest.mark.parametrize("choices", [(1, 0), (2, 1)])  # without a value, without a row
def test_what_is_not_known_is_an_answer_that_names_the_architecture(tmp_path: Path, choices: tuple[int, int]) -> None:
    answer = ask(open_space(write_table(tmp_path)), "column:phone_ms", *choices)
    assert (answer.kind, answer.verdict, answer.latency_ms) == (LatencyKind.LOOKED_UP, Verdict.NOT_KNOWN, None)
    assert answer.detail.endswith(f"has no latency of {Architecture(choices)}")
    assert LatencyAnswer.from_json(answer.to_json()) == answer


def test_a_latency_must_be_above_zero(tmp_path: Path) -> None:
    space = open_space(write_table(tmp_path, "op,width,phone_ms\nconv,8,-1\npool,8,2\n"))
    with pytest.raises(ConfigError, match=r"gives 0:0 a latency that there cannot be; expected .* received -1$"):
        ask(space, "column:phone_ms", 1, 0)


def test_the_column_must_be_there_and_the_space_a_table(tmp_path: Path) -> None:
    settings = LATENCY_SOURCES.settings("column:joules")
    assert isinstance(settings, LatencySettings)
    with pytest.raises(ConfigError, match="has no column 'joules'"):
        open_latency_source(settings, LatencyContext(open_space(write_table(tmp_path)), "int8", None))
    with pytest.raises(ConfigError, match="a latency from a column requires a table of results"):
        open_latency_source(settings, LatencyContext(small_space(), "int8", None))


def test_a_column_needs_a_name() -> None:
    for text in ("column", "column:"):
        with pytest.raises(ConfigError, match="latency source: column"):
            LATENCY_SOURCES.settings(text)

"""Qualities from a column of the table that is searched."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas_edge.errors import ConfigError
from nas_edge.latency.source import Candidate
from nas_edge.quality import QUALITY_SOURCES
from nas_edge.quality.source import Quality, QualityContext, QualitySource
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.tasks import TASKS
from tests.support.spaces import small_space
from tests.support.tables import open_space, write_table


def column(space: SearchSpace, **settings: object) -> QualitySource:
    context = QualityContext(space, TASKS.make(TASKS.settings("tabular")), None, 0)
    return QUALITY_SOURCES.make(QUALITY_SOURCES.settings({"source": "column", **settings}), context)


def quality(source: QualitySource, space: SearchSpace, *choices: int) -> Quality:
    architecture = Architecture(choices)
    return source.evaluate(Candidate(space.build(architecture), architecture))


def test_a_value_is_scaled(tmp_path: Path) -> None:
    space = open_space(write_table(tmp_path))
    assert quality(column(space, column="accuracy"), space, 0, 1) == Quality(93.1)
    assert quality(column(space, column="accuracy", scale=0.01), space, 0, 1).value == pytest.approx(0.931)


@pytest.mark.parametrize("choices", [(2, 0), (2, 1)])  # without a value, without a row
def test_what_is_not_known_has_no_quality_and_says_why(tmp_path: Path, choices: tuple[int, int]) -> None:
    space = open_space(write_table(tmp_path))
    found = quality(column(space, column="accuracy"), space, *choices)
    assert found.value is None
    assert f"has no quality of {Architecture(choices)}" in found.detail


def test_a_network_from_outside_the_space_has_none(tmp_path: Path) -> None:
    space = open_space(write_table(tmp_path))
    design = space.build(Architecture((0, 0)))
    assert column(space, column="accuracy").evaluate(Candidate(design)).value is None


def test_the_name_tells_column_and_table_apart(tmp_path: Path) -> None:
    space = open_space(write_table(tmp_path))
    assert column(space, column="accuracy").name == f"column 'accuracy' of {space.table.name}"


def test_the_column_must_be_there_and_the_space_a_table(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no column 'joules'"):
        column(open_space(write_table(tmp_path)), column="joules")
    with pytest.raises(ConfigError, match="a quality from a column requires a table of results"):
        column(small_space(), column="accuracy")


@pytest.mark.parametrize("settings", [{}, {"column": ""}, {"column": "accuracy", "scale": 0}, {"colour": "blue"}])
def test_wrong_settings_are_one_line(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"^quality") as refusal:
        QUALITY_SOURCES.settings({"source": "column", **settings})
    assert "\n" not in str(refusal.value)

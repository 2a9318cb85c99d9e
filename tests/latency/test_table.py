"""Linear tables, and the published Pixel-1 table's golden numbers (TuNAS reference code, design notes section 5)."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from nas_edge.errors import ConfigError
from nas_edge.latency.table import LinearTable, Term, read_tunas_pixel1
from nas_edge.spaces import SPACES
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.spaces.reference import point
from tests.controllers.small import nested_space

DATA = Path(os.environ.get("NAS_EDGE_DATA", Path(__file__).parents[2] / "../shared/data")) / "tunas_pixel1"
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"needs the published Pixel-1 table in {DATA}; set NAS_EDGE_DATA to the data folder"
)


@pytest.fixture(scope="module")
def proxylessnas() -> SearchSpace:
    return SPACES["proxylessnas"](224, 1.0, 1001, 3)


def test_latency_is_the_bias_plus_the_terms_that_hold() -> None:
    terms = [Term({"kernel": "k5", "op": "keep"}, 2.0), Term({"width": 12}, 0.5), Term({"op": "skip"}, -1.0)]
    table = LinearTable(nested_space(), terms, bias_ms=10.0)
    assert table.latency_ms(Architecture((1, 0, 1))) == 12.5
    assert table.latency_ms(Architecture((1, 1, 0))) == 9.0
    assert table.latency_ms(Architecture((0, 0, 0))) == 10.0


@pytest.mark.parametrize("when", [{"kernel": "k9"}, {"unknown": 1}])
def test_a_term_the_space_does_not_offer_is_refused(when: dict[str, int | float | str]) -> None:
    with pytest.raises(ConfigError, match="which nested does not offer"):
        LinearTable(nested_space(), [Term(when, 1.0)], 0.0)


def test_a_missing_table_is_one_clear_error(tmp_path: Path, proxylessnas: SearchSpace) -> None:
    with pytest.raises(ConfigError, match="cannot read the latency table"):
        read_tunas_pixel1(tmp_path, proxylessnas)


@needs_data
def test_published_table_gives_the_published_latencies(proxylessnas: SearchSpace) -> None:
    table = read_tunas_pixel1(DATA, proxylessnas)
    golden = Architecture(tuple(json.loads((DATA / "golden.json").read_text())["golden_73_indices"]))
    assert table.latency_ms(golden) == pytest.approx(84.0167, abs=5e-5)
    assert table.latency_ms(point(proxylessnas, "proxylessnas-mobile")) == pytest.approx(84.4162, abs=5e-5)


@needs_data
def test_published_table_spans_the_published_range(proxylessnas: SearchSpace) -> None:
    table = read_tunas_pixel1(DATA, proxylessnas)
    smallest = {
        d.path: ("skip" if d.path.endswith(".op") and len(d.choices) > 1 else d.choices[0])
        for d in proxylessnas.decisions
    }
    largest = {d.path: ("keep" if d.path.endswith(".op") else d.choices[-1]) for d in proxylessnas.decisions}
    assert table.latency_ms(proxylessnas.encode(smallest)) == pytest.approx(30.936, abs=5e-4)
    assert table.latency_ms(proxylessnas.encode(largest)) == pytest.approx(219.091, abs=5e-4)


@needs_data
def test_published_table_has_the_published_mean_under_uniform_sampling(proxylessnas: SearchSpace) -> None:
    table = read_tunas_pixel1(DATA, proxylessnas)
    rng = np.random.default_rng(0)
    draws = [table.latency_ms(proxylessnas.sample(rng)) for _ in range(2000)]
    assert np.mean(draws) == pytest.approx(92.606, abs=1.5)
    assert np.std(draws) == pytest.approx(16.9, abs=1.0)

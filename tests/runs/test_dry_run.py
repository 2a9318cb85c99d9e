"""`--dry-run`: one architecture the whole way, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from nas_edge import dry_run
from nas_edge.config import load_config
from nas_edge.dry_run import Estimate, rehearse
from nas_edge.progress import Reporter
from nas_edge.spaces import SPACES
from tests.support.spaces import TINY


def test_an_architecture_goes_the_whole_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SPACES.entries, "tiny", TINY)
    settings = ("space.name=tiny", "space.reference=proxylessnas-mobile", "search.random_baseline=true")
    # The machines that run tests are shared; what is worth what on them is tested elsewhere.
    limits = ("max_risk=1", "max_relative_half_width=5")
    accepting = [f"{stage}.{limit}" for stage in ("measure", "final_measure") for limit in limits]
    config = load_config(
        "smoke",
        settings=(*settings, *accepting, "export.compare=true", "finalists.trained=4", "training.method=distillation"),
    )
    estimate = rehearse(config, Reporter(Console(quiet=True)))
    assert list(estimate.parts_s) == [
        "search",
        "selection",
        "random baseline",
        "training finalists",
        "training the teacher",
        "training 3 networks",
        "converting, checking",
        "measuring",
    ]
    assert all(seconds > 0 for seconds in estimate.parts_s.values())
    assert estimate.memory_bytes is None or estimate.memory_bytes > 2**20
    assert estimate.disk_bytes > 0
    assert not list(tmp_path.iterdir())


def test_the_estimate_in_words() -> None:
    text = Estimate("0:1", 1.25, {"search": 7200.0, "training": 30.0}, None, 3 * 2**30).text()
    assert "0:1\nit took 1.250 ms\n" in text
    assert "2.0 h" in text
    assert "30.0 s" in text
    assert "disk 3.0 GiB" in text
    text = Estimate("0:1", 1.25, {"search": 7200.0}, None, 1, target_ms=4).text()
    assert "it took 1.250 ms; the target is 4.000 ms\n" in text


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_rehearsal_is_as_deterministic_as_the_run(monkeypatch: pytest.MonkeyPatch, deterministic: bool) -> None:
    class Started(Exception):  # noqa: N818 - it is no error
        pass

    def start(asked: bool = True) -> None:
        raise Started(asked)

    monkeypatch.setattr(dry_run, "start_tensorflow", start)
    settings = (f"runs.deterministic={str(deterministic).lower()}", "device.timing_inputs=0")
    with pytest.raises(Started) as started:
        rehearse(load_config("smoke", settings=settings), Reporter(Console(quiet=True)))
    assert started.value.args == (deterministic,)

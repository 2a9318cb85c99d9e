"""Runs that start from the weights of others: what is taken, what a resumed run starts from, and what is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from click.testing import CliRunner

from nas_edge.cli import nas_edge
from nas_edge.config import load_config
from nas_edge.errors import ConfigError
from nas_edge.networks.donor import Donor, Start
from nas_edge.networks.graph import NetworkSpec
from nas_edge.networks.keras_model import get_weights, keras_model
from nas_edge.networks.primitives import IN
from nas_edge.runs.run import Run
from nas_edge.runs.warm_start import SUPERNET, check_init, read_donor, read_warm_start
from nas_edge.spaces.decisions import Architecture
from nas_edge.stages.contender import Contender
from nas_edge.stages.context import RunContext, open_task
from nas_edge.stages.final_training import train_once
from nas_edge.stages.warm_start import start_loop, warm_started
from nas_edge.testing.trainings import bright_or_dark
from tests.support.faults import SPACE, Bench, continued
from tests.support.reporters import Terminating
from tests.support.spaces import tiny_space

TWO_CLASSES = tiny_space(8, 1, 2)
NETWORK = TWO_CLASSES.decode(Architecture((0, 3)))


@pytest.fixture
def earlier(bench: Bench, tmp_path: Path) -> Run:
    """A run that has searched."""
    search = bench.recorded(tmp_path / "earlier", bench.loop(seed=6, steps=4))
    search.run()
    bench.close()
    run = Run(tmp_path / "earlier")
    run.write_config(load_config("smoke"))
    return run


def context(folder: Path, init: str, *settings: str, space: Any = SPACE) -> RunContext:
    task, data = bright_or_dark()
    chosen = (f"init={init}", "training.epochs=1", "training.batch_size=16", *settings)
    nothing = cast(Any, None)
    reporter = Terminating("nothing", 0)
    return RunContext(
        Run(folder), load_config("smoke", settings=chosen), task, data, space, nothing, reporter, nothing, "again"
    )


def said(context: RunContext) -> list[str]:
    return cast(Terminating, context.reporter).said


def test_shared_weights_start_from_those_of_another_run_and_go_on_the_same_after_a_stop(
    bench: Bench, earlier: Run, tmp_path: Path
) -> None:
    init = str(earlier.folder)
    shared = earlier.checkpoints.load(pytest.fail)
    assert shared is not None

    def begun(name: str) -> Any:
        loop, new = bench.loop(), context(tmp_path / name, init)
        start_loop(new, loop)
        return loop, new

    loop, new = begun("whole")
    arrays = loop.arrays()
    for name, array in shared.arrays.items():
        assert np.array_equal(arrays[name], array) == name.startswith("weights/"), "the optimiser starts anew"
    assert said(new) == [
        f"the shared weights start from the shared weights of {init} after step 4: all 5 layers with weights"
    ]
    found = read_warm_start(new.run)
    assert found is not None
    assert (len(found.layers[SUPERNET].taken), found.layers[SUPERNET].fresh) == (5, ())
    search = bench.recorded(tmp_path / "whole", loop)
    search.run()
    whole = bench.outcome(tmp_path / "whole", search)
    assert whole != continued(bench, tmp_path / "cold"), "without them it ends otherwise"

    # Stopped before its first checkpoint; and the other run goes on, or is lost.
    begun("stopped")
    (checkpoint,) = earlier.path("checkpoints").glob("*4-*.npz")
    checkpoint.unlink()
    loop, new = begun("stopped")
    assert said(new) == []
    search = bench.recorded(tmp_path / "stopped", loop)
    search.run()
    assert bench.outcome(tmp_path / "stopped", search) == whole


def test_a_network_starts_from_shared_weights_in_its_shapes(earlier: Run, tmp_path: Path) -> None:
    contender = Contender("winner", "0:3", None, NETWORK)
    new = context(tmp_path / "new", str(earlier.folder), space=TWO_CLASSES)
    started, start = warm_started(new, contender)
    assert start == Start(("stem.k3.conv", "stem.k3.norm"), ("logits",)), "the other run has three classes"
    assert started.initial is not None
    shared = read_donor(str(earlier.folder))[0].weights["stem.k3.conv"][0]
    np.testing.assert_array_equal(started.initial["stem.k3.conv"][0], shared[..., :8])
    weights = train_once(new, contender)
    assert not np.array_equal(weights["stem.k3.conv"][0], started.initial["stem.k3.conv"][0]), "it is trained"
    assert said(new)[0].endswith("after step 4: 2 of 3 layers with weights; fresh: logits")
    assert read_warm_start(new.run) is not None
    # What has shared weights of its own to start from keeps them.
    given = Contender("winner", "0:3", None, NETWORK, started.initial)
    assert warm_started(new, given) == (given, None)


def weights_of(network: NetworkSpec) -> Any:
    return get_weights(keras_model(network, seed=9), network)


@pytest.mark.parametrize("kind", ["delivered", "npz", "h5"])
def test_weights_of_one_network_are_taken_where_shapes_agree(tmp_path: Path, bench: Bench, kind: str) -> None:
    run = Run(tmp_path / "delivered")
    run.write_config(load_config("smoke"))
    weights = weights_of(NETWORK)
    run.write_weights("winner/weights.npz", weights)
    source = run.folder if kind == "delivered" else run.path("winner/weights.npz")
    if kind == "h5":
        source = tmp_path / "net.weights.h5"
        keras_model(NETWORK, weights).save_weights(source)
    new = context(tmp_path / "new", str(source), space=TWO_CLASSES)
    started, start = warm_started(new, Contender("winner", "0:3", None, NETWORK))
    assert start is not None
    assert not start.fresh
    assert started.initial is not None
    for name, arrays in weights.items():
        for one, other in zip(arrays, started.initial[name], strict=True):
            np.testing.assert_array_equal(one, other)
    # As wide as the widest, its stem fits the shared weights, too.
    wide = TWO_CLASSES.decode(Architecture((1, 15)))
    taken = bench.loop().start_from(Donor(weights_of(wide), shared=False))
    assert taken.taken == ("stem.k5.conv", "stem.k5.norm")
    assert IN not in taken.fresh


def test_what_cannot_be_started_from_is_refused_before_anything_is_written(tmp_path: Path, bench: Bench) -> None:
    for source, why in (
        (tmp_path / "nowhere", "does not exist"),
        (tmp_path, "has no config.json, so it is not a run folder"),
        (Path(__file__), "is not a file of weights"),
    ):
        with pytest.raises(ConfigError, match=f"--init: .*{why}"):
            check_init(str(source))
    empty = Run(tmp_path / "empty")
    empty.write_config(load_config("smoke"))
    with pytest.raises(ConfigError, match="has no weights yet"):
        check_init(str(empty.folder))
    with pytest.raises(ConfigError, match="a search of a table trains no networks"):
        open_task(load_config(settings=["init=x", "task=tabular"]))
    for command in (["search", "--preset", "smoke", "--init", str(empty.folder), "--out", str(tmp_path / "out")],):
        result = CliRunner().invoke(nas_edge, command)
        assert isinstance(result.exception, ConfigError)
        assert not (tmp_path / "out").exists()
    other = {"other.layer": (np.zeros(3, np.float32),)}
    empty.write_weights("winner/weights.npz", other)
    with pytest.raises(ConfigError, match=r"fit no layer of the shared weights; expected .*stem\.k3\.conv"):
        start_loop(context(tmp_path / "new", str(empty.folder)), bench.loop())
    without_weights = cast(Any, SimpleNamespace(start_from=lambda donor: None))
    with pytest.raises(ConfigError, match="fit no layer of the networks"):
        start_loop(context(tmp_path / "new", str(empty.folder)), without_weights)

"""Starts the shared weights, and every network that is trained, from those that `init` names."""

from __future__ import annotations

from dataclasses import replace

from nas_edge.errors import ConfigError
from nas_edge.networks.donor import Start
from nas_edge.runs.warm_start import SUPERNET, keep_donor, kept_donor_is, note_start, read_warm_start
from nas_edge.search.loop import SearchLoop
from nas_edge.spaces.decisions import Architecture
from nas_edge.stages.contender import Contender
from nas_edge.stages.context import RunContext


def start_loop(context: RunContext, loop: SearchLoop) -> None:
    """Gives a search that has not begun the weights to start from, if it has any that are trained.

    Raises:
        ConfigError: when no layer fits.
    """
    if context.config.init is None:
        return
    donor, what = keep_donor(context.home, context.config.init, context.reporter.say)
    start = loop.start_from(donor)
    if start is None:
        # Hours later its trainings are to start from them.
        network = context.space.build(Architecture((0,) * len(context.space.decisions))).needed_network()
        names = tuple(node.name for node in network.nodes if node.layer.weights())
        _check(Start(tuple(name for name in names if donor.of(name)), names), what, "networks")
        return
    _check(start, what, SUPERNET)
    known = read_warm_start(context.run)
    if known is None or SUPERNET not in known.layers:
        context.reporter.say(f"the shared weights start from {what}: {start}")
        note_start(context.run, what, SUPERNET, start)


def warm_started(context: RunContext, contender: Contender) -> tuple[Contender, Start | None]:
    """A network with the weights that it starts from, unless it has some; and what it has of `init`."""
    if context.config.init is None or contender.initial is not None:
        return contender, None
    from nas_edge.networks.keras_model import get_weights, keras_model
    from nas_edge.seeds import integer

    donor, _ = keep_donor(context.home, context.config.init, context.reporter.say)
    network = contender.network
    fresh = get_weights(keras_model(network, seed=integer(context.config.seed, "training")), network)
    initial, start = donor.start(network, fresh)
    return replace(contender, initial=initial), start


def note(context: RunContext, name: str, start: Start | None) -> None:
    """Says and keeps what a network that is to be delivered has of `init`, as `warm_started` gave it."""
    if start is None:
        return
    what = kept_donor_is(context.home)
    context.reporter.say(f"{name} starts from {what}: {start}")
    note_start(context.run, what, name, start)


def _check(start: Start, what: str, name: str) -> None:
    if not start.taken:
        raise ConfigError(
            f"--init: {what} fit no layer of the {name}",
            expected=f"layers such as {', '.join(start.fresh[:3])}",
            fix="name a run of the same space, or leave it out",
        )

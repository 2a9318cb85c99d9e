"""What a run starts from, where `init` names another run or a file of weights, and what was taken of it.

    init/weights.npz     the weights, copied when the run begins: it goes on with them, whatever becomes of the source
    init/source.json     what they are
    stages/init.json     which layers of the shared weights, and of each delivered network, started from them

Searches for several targets share the first two, in their common folder; networks delivered later use those of the run
that searched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_edge.errors import ConfigError, RunError
from nas_edge.networks.donor import Donor, Start
from nas_edge.networks.weights_file import SUFFIXES, read_keras_weights
from nas_edge.runs.run import Run

if TYPE_CHECKING:
    import numpy as np

_WEIGHTS, _SOURCE, _TAKEN = "init/weights.npz", "init/source.json", "stages/init.json"
_SHARED = "weights/"

# What the shared weights are called among what started from a donor.
SUPERNET = "shared weights"


def read_donor(source: str, say: Callable[[str], object] = lambda line: None) -> tuple[Donor, str]:
    """Weights to start from, and what they are.

    Args:
        source: a run: the shared weights that it has so far, or if it has none those of what it delivered; or a file of
            one network's weights, `.npz` as a run has them, or as Keras saves them.
        say: is told of damaged checkpoints.

    Raises:
        ConfigError: when there are no weights.
        RunError: when it is a run that cannot be read.
    """
    path = Path(source)
    if path.is_dir():
        return _of_run(Run.open(path), say)
    if not path.is_file():
        raise ConfigError(f"--init: {source} does not exist", expected=f"a run, or a file: .npz, {', '.join(SUFFIXES)}")
    if path.name.endswith(".npz"):
        return Donor(Run(path.parent).read_weights(path.name), shared=False), f"the weights in {source}"
    if path.name.endswith(SUFFIXES):
        return Donor(read_keras_weights(path), shared=False), f"the weights in {source}"
    raise ConfigError(f"--init: {source} is not a file of weights", expected=f"a run, or .npz, {', '.join(SUFFIXES)}")


def _of_run(run: Run, say: Callable[[str], object]) -> tuple[Donor, str]:
    checkpoint = run.checkpoints.load(say)
    layers: dict[str, list[np.ndarray[Any, Any]]] = {}
    for name, array in ({} if checkpoint is None else checkpoint.arrays).items():
        if name.startswith(_SHARED):
            layers.setdefault(name.removeprefix(_SHARED).rpartition("/")[0], []).append(array)
    if checkpoint is not None and layers:
        weights = {name: tuple(arrays) for name, arrays in layers.items()}
        return Donor(weights, shared=True), f"the shared weights of {run.folder} after step {checkpoint.step}"
    if run.path("winner/weights.npz").exists():
        return Donor(run.read_weights("winner/weights.npz"), shared=False), f"the network that {run.folder} delivered"
    raise ConfigError(f"--init: {run.folder} has no weights yet: neither shared ones nor a delivered network")


def keep_donor(home: Run, source: str, say: Callable[[str], object]) -> tuple[Donor, str]:
    """As `read_donor`, once: later from the copy in a run.

    Args:
        home: where the copy is.
        source: see `read_donor`.
        say: likewise.
    """
    if not home.path(_SOURCE).exists():
        donor, what = read_donor(source, say)
        home.write_weights(_WEIGHTS, donor.weights)
        home.write_json(_SOURCE, {"schema_version": 1, "source": source, "what": what, "shared": donor.shared})
    known = home.read_json(_SOURCE)
    return Donor(home.read_weights(_WEIGHTS), bool(known.get("shared"))), kept_donor_is(home)


def kept_donor_is(home: Run) -> str:
    """What the weights are that `keep_donor` has kept."""
    return str(home.read_json(_SOURCE).get("what"))


@dataclass(frozen=True)
class WarmStart:
    """What started from other weights.

    Attributes:
        what: the weights are.
        layers: which were taken, by what started from them: `SUPERNET`, or the name of a delivered network.
    """

    what: str
    layers: Mapping[str, Start]


def note_start(run: Run, what: str, name: str, start: Start) -> None:
    """Keeps what was taken."""
    known = read_warm_start(run)
    layers = {**({} if known is None else known.layers), name: start}
    record = {key: {"taken": list(each.taken), "fresh": list(each.fresh)} for key, each in layers.items()}
    run.write_json(_TAKEN, {"schema_version": 1, "what": what, "layers": record})


def read_warm_start(run: Run) -> WarmStart | None:
    """What was taken so far; None for a run that starts from nothing.

    Raises:
        RunError: when its file is damaged.
    """

    def start_of(content: Mapping[str, Any]) -> WarmStart:
        layers = {
            str(name): Start(tuple(map(str, each["taken"])), tuple(map(str, each["fresh"])))
            for name, each in content["layers"].items()
        }
        return WarmStart(str(content["what"]), layers)

    return run.read_record(_TAKEN, start_of)


def check_init(source: str | None) -> None:
    """Refuses a source that cannot be read, before anything is written.

    Raises:
        ConfigError: when it cannot.
    """
    if source is None:
        return
    try:
        read_donor(source)
    except RunError as error:
        raise ConfigError(f"--init: {error}") from None

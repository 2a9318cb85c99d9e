"""What a one-shot search does with its shared weights, in one process or in several.

With several processes, the first one searches: it alone has controller, device, journal and run folder. The others hold
replicas of the weights and the same data, and follow: whatever the first one is asked for here it tells them, and they
do the same, each with the networks that are its own (`SharedWeights.own`). So all take part in the sums over replicas,
and a search is resumed by resuming the first process: it hands weights and positions in the data to the others.

What is told goes through the same collective operations as gradients do, so processes need no other connection.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from nas_edge.supernet.shared_weights import SharedWeights

Array: TypeAlias = "np.ndarray[Any, Any]"
Batch: TypeAlias = "tuple[Array, Array]"

# Messages are padded to a multiple of so many bytes, so that few shapes of tensors occur.
_PADDED = 1024


class Batches(Protocol):
    """Batches without end, whose position can be kept and gone back to."""

    def __next__(self) -> Batch:
        """Inputs `[batch, ...]` and their targets."""

    def state(self) -> Mapping[str, Any]:
        """The position, as JSON values."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state()` returned."""

    def skip(self) -> None:
        """Passes over a batch without making it."""

    def settle(self) -> None:
        """Waits until nothing is read ahead any more: that would disturb a measurement on this host."""


class WeightSteps:
    """Trains and scores networks of the shared weights, each step on all replicas.

    Args:
        weights: the shared weights.
        train: batches for the weights.
        validation: batches for the quality.
        averaged: whether a step updates the weights once, with the mean gradient of its networks.
        teacher: masks of a network that is trained in every update, too, and teaches the others; None for none. Not for
            averaged updates.
    """

    def __init__(
        self, weights: SharedWeights, train: Batches, validation: Batches, averaged: bool, teacher: Array | None = None
    ) -> None:
        self.weights, self.train_batches, self.validation = weights, train, validation
        self._averaged, self._teacher = averaged, teacher

    def train(self, masks: Sequence[Array]) -> list[float]:
        """Trains each network on a batch of its own, and returns their losses."""
        self._tell("train", [mask.tolist() for mask in masks])
        return self._train(masks)

    def score(self, masks: Sequence[Array]) -> list[float]:
        """Qualities of networks, on one validation batch; or, as published for averaged updates, on one each."""
        self._tell("score", [mask.tolist() for mask in masks])
        return self._score(masks)

    def state(self) -> dict[str, Any]:
        """Positions in the data."""
        return {"train": dict(self.train_batches.state()), "validation": dict(self.validation.state())}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to what `state` returned."""
        positions = {"train": dict(state["train"]), "validation": dict(state["validation"])}
        self._tell("go_to", positions)
        self._go_to(positions)

    def restore_arrays(self, arrays: Mapping[str, Array]) -> None:
        """Goes back to weights that `SharedWeights.arrays` returned."""
        self.weights.restore(arrays)
        self._tell("take", {name: [list(array.shape), str(array.dtype)] for name, array in arrays.items()})
        if self.weights.processes > 1:
            for dtype in sorted({str(array.dtype) for array in arrays.values()}):
                self.weights.sum_over_processes(_joined(arrays, dtype))

    def settle(self) -> None:
        """Waits until this process reads no data ahead."""
        self.train_batches.settle()
        self.validation.settle()

    def end(self) -> None:
        """Lets the other processes go: no more steps follow."""
        self._tell("end", None)

    def follow(self) -> None:
        """Does what the first process does, until it ends; what any other process does.

        Raises:
            RunError: when another process is gone.
        """
        kinds = {"train": self._train_listed, "score": self._score_listed, "go_to": self._go_to, "take": self._take}
        while True:
            name, what = self._heard()
            if name == "end":
                return
            kinds[name](what)

    def _train(self, masks: Sequence[Array]) -> list[float]:
        if self._teacher is not None:
            return [self.weights.train_taught_step(*next(self.train_batches), mask, self._teacher) for mask in masks]
        if not self._averaged:
            return [self.weights.train_step(*next(self.train_batches), mask) for mask in masks]
        return self.weights.train_averaged(self._samples(masks, self.train_batches), len(masks))

    def _samples(self, masks: Sequence[Array], batches: Batches) -> Iterator[tuple[Array, Array, Array]]:
        """The networks of this process, each with a batch of its own."""
        own = self.weights.own(len(masks))
        for number, mask in enumerate(masks):
            if number in own:
                yield (*next(batches), mask)
            else:
                batches.skip()

    def _score(self, masks: Sequence[Array]) -> list[float]:
        if self._averaged:
            return self.weights.qualities(self._samples(masks, self.validation), len(masks))
        inputs, targets = next(self.validation)
        own = self.weights.own(len(masks))
        return self.weights.qualities([(inputs, targets, masks[number]) for number in own], len(masks))

    def _go_to(self, positions: Mapping[str, Any]) -> None:
        self.train_batches.restore(positions["train"])
        self.validation.restore(positions["validation"])

    def _train_listed(self, masks: Any) -> None:
        self._train([np.array(mask, np.float32) for mask in masks])

    def _score_listed(self, masks: Any) -> None:
        self._score([np.array(mask, np.float32) for mask in masks])

    def _take(self, forms: Mapping[str, Any]) -> None:
        arrays = {name: np.zeros(shape, dtype) for name, (shape, dtype) in forms.items()}
        for dtype in sorted({dtype for _, dtype in forms.values()}):
            joined = self.weights.sum_over_processes(_joined(arrays, dtype))
            names = [name for name, array in arrays.items() if array.dtype == dtype]
            ends = np.cumsum([arrays[name].size for name in names])
            for name, part in zip(names, np.split(joined, ends[:-1]), strict=True):
                arrays[name] = part.reshape(arrays[name].shape)
        self.weights.restore(arrays)

    def _tell(self, name: str, what: Any) -> None:
        """Says to the other processes what to do."""
        if self.weights.processes > 1:
            data = np.frombuffer(json.dumps([name, what]).encode(), np.uint8)
            padded = np.zeros(-(-len(data) // _PADDED) * _PADDED, np.int32)
            padded[: len(data)] = data
            self.weights.sum_over_processes(np.array([len(data)], np.int32))
            self.weights.sum_over_processes(padded)

    def _heard(self) -> Any:
        (size,) = self.weights.sum_over_processes(np.zeros(1, np.int32))
        padded = self.weights.sum_over_processes(np.zeros(-(-int(size) // _PADDED) * _PADDED, np.int32))
        return json.loads(padded[:size].astype(np.uint8).tobytes())


def _joined(arrays: Mapping[str, Array], dtype: str) -> Array:
    """All values of one type in a row: TensorFlow compiles a sum anew for each shape."""
    return np.concatenate([array.ravel() for array in arrays.values() if array.dtype == dtype])

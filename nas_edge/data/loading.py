"""Batches of examples, read ahead by threads, in an order that can be resumed exactly. Grain does the reading ahead.

A batch is a pure function of the stream's seed and its number, so the whole state of a stream is two integers, and a
restored stream is bit-identical to an uninterrupted one, whatever the number of threads.

Threads rather than processes: decoding and resizing release Python's lock, and nothing has to be copied from process to
process. They make parts of a batch, so that memory is bounded by about two batches however many of them there are.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nas_edge.data.augmentation import Augmentation, Draws
from nas_edge.data.dataset import Dataset, Indices
from nas_edge.data.mixing import Mixing, shares
from nas_edge.data.preprocessing import Inputs, Preprocessing
from nas_edge.errors import ConfigError, DataError

Batch: TypeAlias = tuple[Inputs, NDArray[Any]]

# Images that one thread prepares at a time: encoded ones, and those of an array, which need little work.
_ENCODED_PART, _ARRAY_PART = 16, 128


class Batches:
    """An endless stream of shuffled batches, each image once per epoch.

    Batches are always full: one may span two epochs.

    Args:
        dataset: the images.
        indices: the images to use.
        batch_size: images per batch.
        rng: draws the seed, and is not used afterwards.
        preprocessing: turns images into inputs.
        augmentation: of the images, or None.
        workers: threads that read ahead; 0 reads when asked.
        mixing: changes to whole batches, made when they are asked for; None for none.

    Raises:
        ConfigError: when `batch_size` is not positive.
        DataError: when there are no images.
    """

    def __init__(
        self,
        dataset: Dataset,
        indices: Indices,
        batch_size: int,
        rng: np.random.Generator,
        preprocessing: Preprocessing,
        augmentation: Augmentation | None = None,
        workers: int = 0,
        mixing: Mixing | None = None,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, received {batch_size}")
        if len(indices) == 0:
            raise DataError("no images to make batches from")
        self._dataset = dataset
        self._indices = indices
        self._batch_size = batch_size
        self._preprocessing = preprocessing
        self._augmentation = augmentation
        self._mixing = mixing or None
        self._seed = int(rng.integers(2**63))
        self._number = 0
        self._parts = _parts(dataset, batch_size)
        self._reader = _Reader(_Work(self._fill, self._shape, sys.maxsize, len(self._parts)), workers)
        self._forget()

    def _forget(self) -> None:
        """Begins anew to remember what parts of a batch, and batches of an epoch, have in common."""
        self._order = lru_cache(2)(self._order_of)
        self._draws = lru_cache(4)(self._draws_of)

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        """Inputs `[batch, size, size, channels]` and targets `[batch, ...]`.

        Raises:
            DataError: when an image cannot be decoded.
        """
        inputs, targets = self._reader.read(self._number)
        if self._mixing is not None:
            rng = np.random.default_rng([self._seed, 2, self._number])
            if self._mixing.mixes_targets:
                targets = shares(self._dataset, targets)
            inputs, targets = self._mixing(inputs, targets, rng)
            inputs = self._preprocessing.normalize(inputs)
        self._number += 1
        return inputs, targets

    def skip(self) -> None:
        """Passes over a batch without making it, where another process makes it."""
        self._number += 1

    def close(self) -> None:
        """Stops reading ahead."""
        self._reader.close()

    def settle(self) -> None:
        """Waits until nothing is read ahead any more, so that a measurement on this host is not disturbed."""
        self._reader.settle()

    @property
    def epoch(self) -> float:
        """Number of passes over the images so far."""
        return self._number * self._batch_size / len(self._indices)

    def state(self) -> dict[str, int]:
        """The position in the stream, as JSON values."""
        return {"seed": self._seed, "number": self._number}

    def restore(self, state: Mapping[str, int]) -> None:
        """Continues from a position that `state` returned."""
        self._reader.close()
        self._seed, self._number = int(state["seed"]), int(state["number"])
        self._forget()

    def _shape(self, number: int) -> tuple[int, ...]:
        return (self._batch_size, *self._preprocessing.shape)

    def _fill(self, number: int, part: int, inputs: Inputs) -> NDArray[Any]:
        """Makes a part of a batch; called from several threads."""
        rows = self._parts[part]
        first = number * self._batch_size
        chosen = self._indices_at(first + rows.start, first + rows.stop)
        images = self._dataset.stored(chosen)
        if self._augmentation is None:
            pixels = self._preprocessing.fit(images)
        else:
            pixels = self._augmentation(images, self._draws(number)[rows], self._preprocessing)
        if self._mixing is None:
            self._preprocessing.normalize(pixels, inputs[rows])
        else:
            inputs[rows] = pixels
        return _targets(self._dataset, chosen)

    def _draws_of(self, number: int) -> Draws:
        assert self._augmentation is not None
        rng = np.random.default_rng([self._seed, 1, number])
        return self._augmentation.draw(self._batch_size, self._preprocessing.input_size, rng)

    def _indices_at(self, first: int, last: int) -> Indices:
        """Images at positions `first..last` of the concatenated epochs."""
        n = len(self._indices)
        parts = []
        for epoch in range(first // n, (last - 1) // n + 1):
            start, stop = max(first - epoch * n, 0), min(last - epoch * n, n)
            parts.append(self._order(epoch)[start:stop])
        return np.concatenate(parts)

    def _order_of(self, epoch: int) -> Indices:
        return np.random.default_rng([self._seed, 0, epoch]).permutation(self._indices)


def in_order(
    dataset: Dataset, indices: Indices, batch_size: int, preprocessing: Preprocessing, workers: int = 0
) -> Iterator[Batch]:
    """Every image once, in order, for evaluation; the last batch may be smaller.

    Raises:
        DataError: when an image cannot be decoded.
    """
    parts = _parts(dataset, batch_size)

    def shape(number: int) -> tuple[int, ...]:
        return (min(batch_size, len(indices) - number * batch_size), *preprocessing.shape)

    def fill(number: int, part: int, inputs: Inputs) -> NDArray[Any]:
        first, rows = number * batch_size, parts[part]
        chosen = indices[first + rows.start : first + rows.stop]
        preprocessing.normalize(preprocessing.fit(dataset.stored(chosen)), inputs[rows])
        return _targets(dataset, chosen)

    batches = -(-len(indices) // batch_size)
    with closing(_Reader(_Work(fill, shape, batches, len(parts)), workers)) as reader:
        for number in range(batches):
            yield reader.read(number)


def _parts(dataset: Dataset, batch_size: int) -> list[slice]:
    """Rows of the parts of a batch."""
    size = _ARRAY_PART if isinstance(dataset.images, np.ndarray) else _ENCODED_PART
    return [slice(start, min(start + size, batch_size)) for start in range(0, batch_size, size)]


def _targets(dataset: Dataset, chosen: Indices) -> NDArray[Any]:
    return np.asarray(dataset.labels[chosen])


@dataclass(frozen=True)
class _Work:
    """How batches are made.

    Attributes:
        fill: makes a part of a batch, of the batch's number and its own: writes its inputs into those of the batch, and
            returns its targets; called from several threads.
        shape: of the inputs of a numbered batch.
        batches: how many there are.
        parts: of each.
    """

    fill: Callable[[int, int, Inputs], NDArray[Any]]
    shape: Callable[[int], tuple[int, ...]]
    batches: int
    parts: int


class _Parts:
    """The parts of batches, one after another: what Grain reads from, and a note of what it has read.

    Args:
        work: how they are made.
        first: number of the first batch.
        stride: from each batch to the next.
    """

    def __init__(self, work: _Work, first: int, stride: int) -> None:
        self._work, self._first, self._stride = work, first, stride
        self._changed = threading.Condition()
        self._inputs: dict[int, Inputs] = {}
        self._done: set[int] = set()

    def __len__(self) -> int:
        batches = -(-(self._work.batches - self._first) // self._stride)
        return min(sys.maxsize, batches * self._work.parts)

    def __getitem__(self, index: int) -> NDArray[Any]:
        place, part = divmod(index, self._work.parts)
        number = self._first + place * self._stride
        try:
            with self._changed:
                if number not in self._inputs:
                    self._inputs[number] = np.empty(self._work.shape(number), np.float32)
                inputs = self._inputs[number]
            return self._work.fill(number, part, inputs)
        finally:
            with self._changed:
                self._done.add(index)
                self._changed.notify_all()

    def take(self, number: int) -> Inputs:
        """Hands out the inputs of a batch, all of whose parts are made."""
        first = (number - self._first) // self._stride * self._work.parts
        with self._changed:
            self._done.difference_update(range(first, first + self._work.parts))
            return self._inputs.pop(number)

    def wait_for(self, indices: range) -> None:
        """Waits until these are made, or failed."""
        with self._changed:
            self._changed.wait_for(lambda: self._done.issuperset(indices))


class _Reader:
    """Reads numbered batches, ahead of who asks for them: all, or every so many of them.

    Args:
        work: how they are made.
        workers: threads.
    """

    def __init__(self, work: _Work, workers: int) -> None:
        self._work, self._workers = work, workers
        # Parts read ahead: about a batch of them, and one for each thread to work on.
        self._ahead = work.parts + workers if workers else 0
        self._source: _Parts | None = None
        self._iterator: Any = None
        self._last: int | None = None
        self._stride = 1
        self._taken = 0

    def read(self, number: int) -> Batch:
        """A batch: as far behind the one before as that was behind its own, or else reading ahead begins anew."""
        if self._source is not None and self._last is not None and number != self._last + self._stride:
            last = self._last
            self.close()
            self._stride = max(1, number - last)
        if self._source is None:
            self._source, self._taken = _Parts(self._work, number, self._stride), 0
            self._iterator = _read_ahead(self._source, self._workers, self._ahead)
        try:
            targets = [next(self._iterator) for _ in range(self._work.parts)]
        except BaseException:
            self.close()  # asked again, it begins with this batch
            raise
        self._last = number
        self._taken += self._work.parts
        return self._source.take(number), targets[0] if len(targets) == 1 else np.concatenate(targets)

    def settle(self) -> None:
        """Waits until what is to be read ahead is there."""
        if self._source is not None and self._workers:
            self._source.wait_for(range(self._taken, min(len(self._source), self._taken + self._ahead)))

    def close(self) -> None:
        """Stops the threads; what is asked for next is read anew."""
        if self._iterator is not None:
            self._iterator.close()
        self._source = self._iterator = self._last = None
        self._stride = 1


def _read_ahead(source: Any, threads: int, ahead: int) -> Any:
    """Grain's iterator over `source`."""
    absl = logging.getLogger("absl")
    before = absl.level
    absl.setLevel(logging.ERROR)  # or Grain warns that JAX is missing, which it is not for
    try:
        import grain
    finally:
        absl.setLevel(before)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    return iter(grain.MapDataset.source(source).to_iter_dataset(options))

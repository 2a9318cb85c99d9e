"""Batches of examples, read ahead, in an order that can be resumed exactly. Grain does the reading ahead.

A batch is a pure function of the stream's seed and its number, so the whole state of a stream is two integers, and a
restored stream is bit-identical to an uninterrupted one, whatever the number of threads or processes.

Threads by default: decoding and resizing release Python's lock, and nothing has to be copied from process to process.
Processes decode image files where that lock is what many processors wait for. Either make parts of a batch, so that
memory is bounded by about two batches however many of them there are.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nas_edge.data.augmentation import Changes
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
        processes: processes that read ahead in place of the threads; images of an array need none. They end with this
            one, however it ends.

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
        augmentation: Changes | None = None,
        workers: int = 0,
        mixing: Mixing | None = None,
        processes: int = 0,
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
        self._workers, self._processes = workers, 0 if isinstance(dataset.images, np.ndarray) else processes
        self._begin(int(rng.integers(2**63)), 0)

    def _begin(self, seed: int, number: int) -> None:
        self._seed, self._number = seed, number
        pixels = _Shuffled(
            self._dataset, self._indices, self._batch_size, self._preprocessing, self._augmentation, seed
        )
        parts = tuple(_parts(self._dataset, self._batch_size))
        work = _Work(pixels, self._put, self._shape, sys.maxsize, parts)
        self._reader = _Reader(work, self._workers, self._processes)

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
        """Waits until nothing is read ahead any more, so that a measurement on this host is not disturbed.

        Processes, which do not say when they rest, are ended for it.
        """
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
        self._begin(int(state["seed"]), int(state["number"]))

    def _shape(self, number: int) -> tuple[int, ...]:
        return (self._batch_size, *self._preprocessing.shape)

    def _put(self, pixels: NDArray[Any], inputs: Inputs) -> None:
        if self._mixing is None:
            self._preprocessing.normalize(pixels, inputs)
        else:
            inputs[:] = pixels


class _Shuffled:
    """The images of a stream of shuffled batches, as a function of the batch's number; also in another process.

    Args:
        dataset: the images.
        indices: the images to use.
        batch_size: images per batch.
        preprocessing: cuts them out.
        augmentation: of the images, or None.
        seed: of the stream.
    """

    def __init__(
        self,
        dataset: Dataset,
        indices: Indices,
        batch_size: int,
        preprocessing: Preprocessing,
        augmentation: Changes | None,
        seed: int,
    ) -> None:
        self._arguments = (dataset, indices, batch_size, preprocessing, augmentation, seed)
        # What parts of a batch, and batches of an epoch, have in common.
        self._order = lru_cache(2)(self._order_of)
        self._draws = lru_cache(4)(self._draws_of)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Shuffled, self._arguments

    def __call__(self, number: int, rows: slice) -> tuple[NDArray[Any], NDArray[Any]]:
        """Pixels and targets of some rows of a batch; called from several threads."""
        dataset, _, batch_size, preprocessing, augmentation, _ = self._arguments
        first = number * batch_size
        chosen = self._indices_at(first + rows.start, first + rows.stop)
        images = dataset.stored(chosen)
        if augmentation is None:
            pixels: NDArray[Any] = preprocessing.fit(images)
        else:
            pixels = augmentation(images, self._draws(number)[rows], preprocessing)
            return pixels, _targets(dataset, chosen, preprocessing, augmentation, self._draws(number)[rows])
        return pixels, _targets(dataset, chosen, preprocessing)

    def _draws_of(self, number: int) -> Any:
        _, _, batch_size, preprocessing, augmentation, seed = self._arguments
        assert augmentation is not None
        return augmentation.draw(batch_size, preprocessing, np.random.default_rng([seed, 1, number]))

    def _indices_at(self, first: int, last: int) -> Indices:
        """Images at positions `first..last` of the concatenated epochs."""
        n = len(self._arguments[1])
        parts = []
        for epoch in range(first // n, (last - 1) // n + 1):
            start, stop = max(first - epoch * n, 0), min(last - epoch * n, n)
            parts.append(self._order(epoch)[start:stop])
        return np.concatenate(parts)

    def _order_of(self, epoch: int) -> Indices:
        indices, seed = self._arguments[1], self._arguments[5]
        return np.random.default_rng([seed, 0, epoch]).permutation(indices)


def in_order(
    dataset: Dataset, indices: Indices, batch_size: int, preprocessing: Preprocessing, workers: int = 0
) -> Iterator[Batch]:
    """Every image once, in order, for evaluation; the last batch may be smaller.

    Raises:
        DataError: when an image cannot be decoded.
    """
    parts = tuple(_parts(dataset, batch_size))

    def shape(number: int) -> tuple[int, ...]:
        return (min(batch_size, len(indices) - number * batch_size), *preprocessing.shape)

    def pixels(number: int, rows: slice) -> tuple[NDArray[Any], NDArray[Any]]:
        chosen = indices[number * batch_size + rows.start : number * batch_size + rows.stop]
        return preprocessing.fit(dataset.stored(chosen)), _targets(dataset, chosen, preprocessing)

    def put(found: NDArray[Any], inputs: Inputs) -> None:
        preprocessing.normalize(found, inputs)

    batches = -(-len(indices) // batch_size)
    with closing(_Reader(_Work(pixels, put, shape, batches, parts), workers)) as reader:
        for number in range(batches):
            yield reader.read(number)


def _parts(dataset: Dataset, batch_size: int) -> list[slice]:
    """Rows of the parts of a batch."""
    size = _ARRAY_PART if isinstance(dataset.images, np.ndarray) else _ENCODED_PART
    return [slice(start, min(start + size, batch_size)) for start in range(0, batch_size, size)]


def _targets(
    dataset: Dataset,
    chosen: Indices,
    preprocessing: Preprocessing,
    augmentation: Changes | None = None,
    draws: Any = None,
) -> NDArray[Any]:
    """What a network is to answer for images that are changed so."""
    stored = np.asarray(dataset.labels[chosen])
    if dataset.target_view is None:
        return stored
    seen: NDArray[Any] = dataset.target_view(stored, preprocessing, augmentation, draws)
    return seen


@dataclass(frozen=True)
class _Work:
    """How batches are made.

    Attributes:
        pixels: makes a part of a batch, of the batch's number and the part's rows: returns pixels and targets; called
            from several threads, and perhaps in another process.
        put: makes inputs of pixels, in the place given.
        shape: of the inputs of a numbered batch.
        batches: how many there are.
        parts: rows of the parts of each.
    """

    pixels: Callable[[int, slice], tuple[NDArray[Any], NDArray[Any]]]
    put: Callable[[NDArray[Any], Inputs], None]
    shape: Callable[[int], tuple[int, ...]]
    batches: int
    parts: tuple[slice, ...]


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
        return min(sys.maxsize, batches * len(self._work.parts))

    def __getitem__(self, index: int) -> NDArray[Any]:
        place, part = divmod(index, len(self._work.parts))
        number = self._first + place * self._stride
        try:
            with self._changed:
                if number not in self._inputs:
                    self._inputs[number] = np.empty(self._work.shape(number), np.float32)
                inputs = self._inputs[number]
            rows = self._work.parts[part]
            pixels, targets = self._work.pixels(number, rows)
            self._work.put(pixels, inputs[rows])
            return targets
        finally:
            with self._changed:
                self._done.add(index)
                self._changed.notify_all()

    def take(self, number: int) -> Inputs:
        """Hands out the inputs of a batch, all of whose parts are made."""
        parts = len(self._work.parts)
        first = (number - self._first) // self._stride * parts
        with self._changed:
            self._done.difference_update(range(first, first + parts))
            return self._inputs.pop(number)

    def wait_for(self, indices: range) -> None:
        """Waits until these are made, or failed."""
        with self._changed:
            self._changed.wait_for(lambda: self._done.issuperset(indices))


class _PixelParts:
    """The same for other processes, which hand out pixels: they are a quarter of the inputs. Without end.

    Args:
        pixels: see `_Work`.
        parts: see `_Work`.
        first: number of the first batch.
        stride: from each batch to the next.
    """

    def __init__(self, pixels: Any, parts: Sequence[slice], first: int, stride: int) -> None:
        self._pixels, self._parts, self._first, self._stride = pixels, parts, first, stride

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> tuple[NDArray[Any], NDArray[Any]]:
        place, part = divmod(index, len(self._parts))
        found: tuple[NDArray[Any], NDArray[Any]] = self._pixels(self._first + place * self._stride, self._parts[part])
        return found


class _Reader:
    """Reads numbered batches, ahead of who asks for them: all, or every so many of them.

    Args:
        work: how they are made.
        workers: threads.
        processes: in place of the threads, for work without end.
    """

    def __init__(self, work: _Work, workers: int, processes: int = 0) -> None:
        self._work, self._workers, self._processes = work, workers, processes
        # Parts read ahead: about a batch of them, and one for each thread to work on.
        self._ahead = len(work.parts) + workers if workers else 0
        self._source: _Parts | None = None
        self._iterator: Any = None
        self._last: int | None = None
        self._stride = 1
        self._taken = 0

    def read(self, number: int) -> Batch:
        """A batch: as far behind the one before as that was behind its own, or else reading ahead begins anew."""
        if self._iterator is not None and self._last is not None and number != self._last + self._stride:
            last = self._last
            self.close()
            self._stride = max(1, number - last)
        if self._iterator is None:
            self._begin(number)
        try:
            found = [next(self._iterator) for _ in self._work.parts]
        except BaseException:
            self.close()  # asked again, it begins with this batch
            raise
        self._last = number
        if self._source is not None:
            self._taken += len(self._work.parts)
            return self._source.take(number), _joined(found)
        inputs = np.empty(self._work.shape(number), np.float32)
        for rows, (pixels, _) in zip(self._work.parts, found, strict=True):
            self._work.put(pixels, inputs[rows])
        return inputs, _joined([targets for _, targets in found])

    def _begin(self, number: int) -> None:
        work = self._work
        if self._processes:
            parts = _PixelParts(work.pixels, work.parts, number, self._stride)
            self._iterator = _read_in_processes(parts, self._processes, len(work.parts))
        else:
            self._source, self._taken = _Parts(work, number, self._stride), 0
            self._iterator = _read_ahead(self._source, self._workers, self._ahead)

    def settle(self) -> None:
        """Waits until what is to be read ahead is there; ends processes."""
        if self._processes:
            self.close()
        elif self._source is not None and self._workers:
            self._source.wait_for(range(self._taken, min(len(self._source), self._taken + self._ahead)))

    def close(self) -> None:
        """Stops the threads or processes; what is asked for next is read anew."""
        if self._iterator is not None:
            self._iterator.close()
        self._source = self._iterator = self._last = None
        self._stride = 1


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _read_ahead(source: Any, threads: int, ahead: int) -> Any:
    """Grain's iterator over `source`."""
    grain = _grain()
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    return iter(grain.MapDataset.source(source).to_iter_dataset(options))


def _read_in_processes(source: Any, processes: int, ahead: int) -> Any:
    """The same in several processes, each of which has about its share of `ahead` read ahead."""
    grain = _grain()
    each = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    options = grain.MultiprocessingOptions(num_workers=processes, per_worker_buffer_size=-(-ahead // processes))
    dataset = grain.MapDataset.source(source).to_iter_dataset(each)
    return iter(dataset.mp_prefetch(options, worker_init_fn=_begin_process))


def _begin_process(number: int, processes: int) -> None:
    """Leaves Ctrl-C to the process that reads, and ends with it: also when that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)


def _grain() -> Any:
    absl = logging.getLogger("absl")
    before = absl.level
    absl.setLevel(logging.ERROR)  # or Grain warns that JAX is missing, which it is not for
    try:
        import grain
    finally:
        absl.setLevel(before)
    return grain

"""Steps of several processes: what the first is asked for, the others do as well."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import numpy as np
import pytest

from nas_edge.search.one_shot import OneShotSettings
from nas_edge.search.weight_steps import WeightSteps
from tests.support.batches import SeededBatches

PROCESSES, NETWORKS = 2, 4
ROOT = Path(__file__).parents[2]


class Exchange:
    """Sums what two threads bring, as collective operations do for processes."""

    def __init__(self) -> None:
        self._barrier, self._brought = Barrier(PROCESSES, timeout=20), {}  # type: ignore[var-annotated]

    def sum(self, number: int, values: Any) -> Any:
        self._brought[number] = values
        self._barrier.wait()
        total = np.sum([self._brought[i] for i in range(PROCESSES)], axis=0).astype(values.dtype)
        self._barrier.wait()
        return total


class Weights:
    """Notes what it is asked for."""

    processes = PROCESSES

    def __init__(self, number: int, exchange: Exchange) -> None:
        self.number, self._exchange = number, exchange
        self.trained: list[Any] = []
        self.scored: list[Any] = []
        self.arrays: Mapping[str, Any] = {}

    def own(self, count: int) -> list[int]:
        return [i for i in range(count) if i % PROCESSES == self.number]

    def sum_over_processes(self, values: Any) -> Any:
        return self._exchange.sum(self.number, values)

    def train_averaged(self, samples: Any, count: int) -> list[float]:
        self.trained += [(images.sum(), masks) for images, _, masks in samples]
        return [0.0] * count

    def qualities(self, samples: Any, count: int) -> list[float]:
        self.scored += [(images.sum(), masks) for images, _, masks in samples]
        return [0.0] * count

    def restore(self, arrays: Mapping[str, Any]) -> None:
        self.arrays = arrays


def test_the_other_process_trains_its_share_of_the_networks_on_their_batches_until_the_end() -> None:
    exchange = Exchange()
    weights = [Weights(number, exchange) for number in range(PROCESSES)]
    first, other = (WeightSteps(one, SeededBatches(1), SeededBatches(2), True) for one in weights)  # type: ignore[arg-type]
    following = Thread(target=other.follow, daemon=True)
    following.start()
    masks = [np.full((2, 2), i, np.float32) for i in range(NETWORKS)]
    first.restore({"train": {"number": 5}, "validation": {"number": 7}})
    kept = {"a": np.array([[1.0], [np.pi]], np.float32), "b": np.array(7, np.int64), "c": np.ones(3, np.float32)}
    first.restore_arrays(kept)
    first.train(masks)
    first.score(masks)
    first.end()
    following.join(20)
    assert not following.is_alive()
    assert first.state() == other.state() == {"train": {"number": 9}, "validation": {"number": 11}}
    for name, array in kept.items():
        np.testing.assert_array_equal(weights[1].arrays[name], array)
        assert weights[1].arrays[name].dtype == array.dtype
    np.testing.assert_array_equal([m[0, 0] for _, m in weights[0].trained], [0, 2])
    np.testing.assert_array_equal([m[0, 0] for _, m in weights[1].trained], [1, 3])
    batches = SeededBatches(1)
    batches.restore({"number": 5})
    sums = [next(batches)[0].sum() for _ in range(NETWORKS)]
    assert [total for total, _ in weights[0].trained] == [sums[0], sums[2]]
    assert [total for total, _ in weights[1].trained] == [sums[1], sums[3]]
    batches = SeededBatches(2)
    batches.restore({"number": 7})
    sums = [next(batches)[0].sum() for _ in range(NETWORKS)]
    assert [total for total, _ in weights[0].scored] == [sums[0], sums[2]]
    assert [total for total, _ in weights[1].scored] == [sums[1], sums[3]]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"distribution": "mirrored"}, "weight_updates=averaged"),
        ({"xla": True}, "execution=masked"),
        (
            {"distribution": "mirrored", "weight_updates": "averaged", "precision": "mixed_float16"},
            "use mixed_bfloat16",
        ),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        OneShotSettings(**settings)


@pytest.mark.slow
def test_replicas_in_one_process_and_in_two_come_to_the_weights_and_policy_of_none() -> None:
    command = [sys.executable, "-m", "benchmarks.distributed", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["relative_difference"] <= 1e-5

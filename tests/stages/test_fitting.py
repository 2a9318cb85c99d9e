"""How many examples are scored at once."""

from __future__ import annotations

from nas_edge.networks.analysis import peak_activation_values
from nas_edge.spaces import find_space
from nas_edge.spaces.extremes import largest
from nas_edge.stages.fitting import BATCH_BYTES, MOST_AT_ONCE, evaluation_batch_size, inference_bytes
from nas_edge.testing.problems import nested_space
from tests.support.spaces import small_space, tiny_space


def test_a_batch_of_the_largest_network_fits_and_twice_as_many_do_not() -> None:
    space = find_space("mobilenet-v3-like")(224, 1.0, 10, 3)
    size = evaluation_batch_size(space)
    one = inference_bytes(space.decode(largest(space)))
    assert 2 < size < MOST_AT_ONCE
    assert size * one <= BATCH_BYTES < 2 * size * one


def test_small_networks_are_scored_so_many_at_once() -> None:
    assert evaluation_batch_size(tiny_space()) == MOST_AT_ONCE
    assert evaluation_batch_size(nested_space()) == MOST_AT_ONCE


def test_no_architecture_needs_more_memory_than_the_largest() -> None:
    import numpy as np

    space, rng = small_space(), np.random.default_rng(0)
    most = peak_activation_values(space.decode(largest(space)))
    assert all(peak_activation_values(space.decode(space.sample(rng))) <= most for _ in range(50))

"""Every space keeps what spaces promise."""

from __future__ import annotations

import pytest

from nas_edge.spaces import find_space, network_space_names
from nas_edge.testing import check_space, check_supernet
from tests.support.spaces import block_space, small_space, tiny_space


@pytest.mark.parametrize("name", network_space_names())
def test_spaces_conform(name: str) -> None:
    check_space(find_space(name))


def test_the_tests_own_spaces_conform() -> None:
    check_space(lambda size, _, classes, channels: small_space(size, channels, classes))
    check_space(lambda size, _, classes, channels: tiny_space(size, channels, classes))
    check_space(lambda size, _, classes, channels: block_space(size, channels, classes))


def test_a_supernet_conforms() -> None:
    check_supernet(lambda size, _, classes, channels: tiny_space(size, channels, classes))

"""Conformance suites: what every implementation of a seam promises, see the README's table.

This package's own implementations run them in its tests; run them on yours. Each is a plain function that takes a
function making the thing under test, and raises AssertionError saying which promise is broken, with or without pytest:

    def test_my_space() -> None:
        check_space(my_space)
"""

from __future__ import annotations

from nas_edge.testing.controllers import check_controller
from nas_edge.testing.devices import check_device_agent, check_device_scheme
from nas_edge.testing.latency import check_latency_source
from nas_edge.testing.layers import check_layer
from nas_edge.testing.quality import check_quality_source
from nas_edge.testing.searches import check_search_loop
from nas_edge.testing.spaces import check_space, check_supernet
from nas_edge.testing.tasks import check_task
from nas_edge.testing.training import check_training_method

__all__ = [
    "check_controller",
    "check_device_agent",
    "check_device_scheme",
    "check_latency_source",
    "check_layer",
    "check_quality_source",
    "check_search_loop",
    "check_space",
    "check_supernet",
    "check_task",
    "check_training_method",
]

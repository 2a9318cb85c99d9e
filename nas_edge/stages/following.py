"""Searches in several processes: what all but the first do.

The first process makes the run; see `search/weight_steps.py` for what the others do.
"""

from __future__ import annotations

from concurrent.futures import Future

from nas_edge.config import RunConfig
from nas_edge.errors import ConfigError, NasEdgeError
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.source import Candidate, LatencySource
from nas_edge.progress import Reporter
from nas_edge.quiet import start_tensorflow
from nas_edge.search.methods import SearchContext, make_search
from nas_edge.search.one_shot import OneShotSearch, OneShotSettings
from nas_edge.stages.context import load_data, make_space, open_task


class _NoLatencies(LatencySource):
    """Only the first process asks devices."""

    @property
    def name(self) -> str:
        """See `LatencySource`."""
        return "the first process"

    def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
        """Never asked."""
        raise NasEdgeError("only the first process of a search asks for latencies")


def follow(config: RunConfig, reporter: Reporter) -> None:
    """Takes part in a search as one of its processes but the first, until its steps are made; writes nothing.

    Args:
        config: the settings of the search, as the first process has them.
        reporter: what the user sees.

    Raises:
        ConfigError: when the settings are not those of a search in several processes.
        DataError: when this machine has not the data.
        RunError: when the first process is gone.
    """
    if not isinstance(config.search, OneShotSettings) or config.search.distribution != "multi-worker":
        raise ConfigError("only a search with search.distribution=multi-worker has other processes that follow it")
    config.search.connect_processes()
    task = open_task(config)
    data = load_data(config, task, reporter)
    space = make_space(config, task, data)
    start_tensorflow(config.runs.deterministic)
    loop = make_search(config.search, SearchContext(space, task, data, _NoLatencies(), (), config.seed))
    assert isinstance(loop, OneShotSearch)
    reporter.say("following the first process")
    loop.weight_steps.follow()
    reporter.say("the steps of the search are made")

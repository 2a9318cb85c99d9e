"""What the settings of latency sources have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from nas_edge.settings import ChoiceSettings

if TYPE_CHECKING:
    from nas_edge.latency.source import LatencySource
    from nas_edge.networks.precisions import Precision
    from nas_edge.spaces.decisions import SearchSpace


class LatencySettings(ChoiceSettings):
    """The settings of any latency source.

    Attributes:
        asks_all_devices: whether devices of several models can answer, each for itself.
        measures_finalists: whether the run's device, if there is one, measures what the search ends with: an answer
            stands in for that very device.
        predicts: whether a model answers, and nothing is measured.
        measures_some: whether it predicts some latencies and measures others.
        tells: resources that its answers report beside the latency, measured or not.
        source: its name.
    """

    asks_all_devices: ClassVar[bool] = False
    measures_finalists: ClassVar[bool] = False
    predicts: ClassVar[bool] = False
    measures_some: ClassVar[bool] = False
    tells: ClassVar[tuple[str, ...]] = ()

    source: str

    @property
    def asks_device(self) -> bool:
        """Whether the run's own device answers, so that a target can be taken from it."""
        return False

    @property
    def text(self) -> str:
        """As a user writes it, for example `table:FILE`."""
        rest = [str(value) for name, value in self if name != "source"]
        return ":".join([self.source, *rest])

    def around(
        self, source: LatencySource, space: SearchSpace, precision: Precision, device: LatencySource | None
    ) -> LatencySource:
        """What the search asks: the source, or what stands around it, outside of the cache of measurements.

        Args:
            source: that these settings open, with its cache.
            space: that is searched.
            precision: that is delivered.
            device: the run's device, if it has one.

        Raises:
            ConfigError: when it cannot be made.
        """
        return source


class DeviceLatencySettings(LatencySettings):
    """Settings of `device`."""

    asks_all_devices: ClassVar[bool] = True

    source: str = "device"
    pooled: bool = Field(True, description="steady noisy latencies by those of the run's other candidates")

    @property
    def asks_device(self) -> bool:
        """See `LatencySettings`."""
        return True

    @property
    def text(self) -> str:
        """`device`."""
        return self.source


class TextSettings(LatencySettings):
    """The settings of a source of another package that is just a function: the text after the colon."""

    text_field: ClassVar[str] = "rest"

    rest: str = ""

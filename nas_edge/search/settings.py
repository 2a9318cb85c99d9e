"""What the settings of search methods have in common."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from nas_edge.controllers import CONTROLLERS
from nas_edge.rewards import REWARDS
from nas_edge.settings import ChoiceSettings, one_of


class SearchSettings(ChoiceSettings):
    """The settings of any search method.

    Attributes:
        quality_drifts: whether qualities of early steps say less than those of late ones, as with weights that are
            trained all along.
        method: its name.
    """

    quality_drifts: ClassVar[bool] = False

    method: str = Field(description="how architectures are evaluated")
    steps: int = Field(27_050, ge=1, le=10**9)
    samples_per_step: int = Field(1, ge=1, le=1024, description="architectures proposed per step")
    controller: Annotated[ChoiceSettings, CONTROLLERS] = Field(
        default_factory=CONTROLLERS.default,
        description="what proposes architectures",
    )
    reward: Annotated[str, one_of(REWARDS)] = Field("absolute", description=f"one of {', '.join(REWARDS)}")
    evaluation_batch_size: int | None = Field(
        None,
        ge=2,
        description="examples scored at once where all validation data is, as for finalists; None: as many as fit",
    )
    random_baseline: bool = Field(False, description="also evaluate as many random architectures as the search did")

    @property
    def quality_origin(self) -> str:
        """Where qualities come from, in words after the metric's name: `with shared weights`; may be empty."""
        return ""

    def connect_processes(self) -> None:
        """Connects the processes of a search in several ones; has to come before all else that TensorFlow does.

        Raises:
            ConfigError: when they cannot be connected.
        """

    @property
    def delay_steps(self) -> int:
        """Steps before the controller learns."""
        return 0

    @property
    def evaluated(self) -> int:
        """Architectures that the whole search evaluates."""
        return (self.steps - self.delay_steps) * self.samples_per_step

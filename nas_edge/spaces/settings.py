"""What the settings of spaces have in common."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from nas_edge.settings import ChoiceSettings, one_of
from nas_edge.spaces.published import REFERENCE_NETWORKS


class SpaceSettings(ChoiceSettings):
    """The settings of any space."""

    name: str

    @property
    def reference_name(self) -> str | None:
        """The published network that results are compared with; None where there is none."""
        return None


class NetworkSpaceSettings(SpaceSettings):
    """The settings of a space of networks.

    Attributes:
        default_reference: the published network that results are compared with, and whose latency is the target when
            none is given.
    """

    default_reference: ClassVar[str] = "mobilenet-v2"

    input_size: int = Field(224, ge=8, description="side of the square input, pixels")
    width_multiplier: float = Field(1.0, gt=0, le=4, description="scales every filter count")
    reference: Annotated[str | None, one_of(REFERENCE_NETWORKS)] = Field(
        None, description="published network to compare with"
    )

    @property
    def reference_name(self) -> str:
        """The published network to compare with."""
        return self.reference or self.default_reference

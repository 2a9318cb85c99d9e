"""What the settings of spaces have in common."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, field_validator

from nas_edge.settings import ChoiceSettings
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
    reference: str | None = Field(None, description="published network to compare with")

    @field_validator("reference")
    @classmethod
    def _known_reference(cls, name: str | None) -> str | None:
        if name is not None and name not in REFERENCE_NETWORKS:
            raise ValueError(f"expected one of {', '.join(REFERENCE_NETWORKS)}")
        return name

    @property
    def reference_name(self) -> str:
        """The published network to compare with."""
        return self.reference or self.default_reference

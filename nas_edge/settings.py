"""What every group of settings is made of."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A group of settings: unknown names are refused, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ChoiceSettings(Settings):
    """The settings of one entry of a `registry.Registry`.

    A subclass has a field that holds the entry's name, as a `Literal` with that default: `name`, or what else the
    registry's `key` is.
    """

    @classmethod
    def from_text(cls, rest: str) -> dict[str, Any]:
        """The settings that a short form names, for example those of `table:FILE`.

        Args:
            rest: what follows the colon; "" without a colon.

        Raises:
            ValueError: when the entry takes nothing there.
        """
        if rest:
            raise ValueError(f"nothing may follow the name, received {rest!r}")
        return {}

    @classmethod
    def takes_text(cls) -> bool:
        """Whether there is a short form: something may follow the name and a colon."""
        return cls.from_text.__qualname__ != ChoiceSettings.from_text.__qualname__

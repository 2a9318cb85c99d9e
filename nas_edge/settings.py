"""What every group of settings is made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict


class Settings(BaseModel):
    """A group of settings: unknown names are refused, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ChoiceSettings(Settings):
    """The settings of one entry of a `registry.Registry`.

    A subclass has a field that holds the entry's name, as a `Literal` with that default: `name`, or what else the
    registry's `key` is.

    Attributes:
        text_field: the setting that is what follows the colon of a short form, `file` of `table:FILE`; "" where nothing
            may follow.
        defaults: other defaults for a run that chooses the entry, by dotted name; of tasks and of what is searched
            jointly.
        presets: likewise, of what a preset sets, by its name: for example data to see a task work with, in `smoke`.
    """

    text_field: ClassVar[str] = ""
    defaults: ClassVar[Mapping[str, Any]] = {}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @classmethod
    def from_text(cls, rest: str) -> dict[str, Any]:
        """The settings that a short form names, for example those of `table:FILE`.

        Args:
            rest: what follows the colon; "" without a colon.

        Raises:
            ValueError: when the entry takes nothing there.
        """
        if cls.text_field:
            return {cls.text_field: rest}
        if rest:
            raise ValueError(f"nothing may follow the name, received {rest!r}")
        return {}

    @classmethod
    def requires_text(cls) -> bool:
        """Whether the name alone does not do: something has to follow it and a colon."""
        if cls.text_field:
            return cls.model_fields[cls.text_field].is_required()
        return cls.from_text.__qualname__ != ChoiceSettings.from_text.__qualname__


def one_of(names: Collection[str]) -> AfterValidator:
    """Annotates a setting that is one of some names; None passes where the setting allows it."""

    def check(name: str | None) -> str | None:
        if name is not None and name not in names:
            raise ValueError(f"expected one of {', '.join(names)}")
        return name

    return AfterValidator(check)

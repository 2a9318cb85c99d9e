"""Tables of interchangeable parts: search methods, controllers, latency sources, tasks and so on.

    CONTROLLERS = Registry("name", "controller", "nas_edge.controllers", {
        "reinforce": Entry(ReinforceSettings, make_reinforce),
        ...
    })

A new part of this package is one new file and one line in its table. Other packages add theirs by entry points of the
table's group: the name is the entry's, the object an `Entry`. A table is also the type of a setting: in
`Annotated[ControllerSettings, CONTROLLERS]` it stands for the discriminated union of its entries' settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar, Union

from pydantic import (
    ConfigDict,
    Discriminator,
    GetCoreSchemaHandler,
    PlainSerializer,
    PlainValidator,
    Tag,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError, core_schema

from device_agents.plugins import Plugin, PluginGroup
from nas_edge.errors import ConfigError, NasEdgeError
from nas_edge.settings import ChoiceSettings

if TYPE_CHECKING:
    from pydantic_core import CoreSchema

MadeT = TypeVar("MadeT")
SettingsT = TypeVar("SettingsT", bound=ChoiceSettings)

_PLUGIN = "of another package"


@dataclass(frozen=True)
class Entry(Generic[MadeT]):
    """One line of a table.

    Attributes:
        settings: the class of its settings.
        make: makes the part; its first argument are the settings, the others are those of the table. It imports
            what is heavy when it is called.
        summary: what it is, in a few words.
    """

    settings: type[ChoiceSettings]
    make: Callable[..., MadeT]
    summary: str = ""


class Registry(Generic[MadeT]):
    """A table of entries by name.

    Args:
        key: the setting that holds the name.
        what: what one entry is called in messages, for example "controller".
        group: of the entry points with which other packages add entries.
        entries: what is built in; the first is the default.
        error: raised for an unknown name.
        made: what an entry makes; None where that is not checked.
        adapt: turns what another package offers, where it is no `Entry`, into one: a plain function is simpler to
            write. None takes entries only.
    """

    def __init__(
        self,
        key: str,
        what: str,
        group: str,
        entries: Mapping[str, Entry[MadeT]],
        *,
        error: type[NasEdgeError] = ConfigError,
        made: type[MadeT] | None = None,
        adapt: Callable[[str, Callable[..., MadeT]], Entry[MadeT]] | None = None,
    ) -> None:
        self.key, self.what, self.entries = key, what, dict(entries)
        self._error, self._made, self._adapt = error, made, adapt
        self._in_union: frozenset[str] = frozenset()
        self.plugins = PluginGroup(group, what, self.entries, error, NasEdgeError)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that may be chosen, those of other packages last; nothing is loaded."""
        return tuple(dict.fromkeys([*self.entries, *(plugin.name for plugin in self.plugins.plugins())]))

    def find(self, name: str) -> Entry[MadeT]:
        """The entry of that name; that of another package is loaded now.

        Raises:
            NasEdgeError: `error`, for an unknown name, or one that several packages claim.
        """
        plugin = self.plugins.find(name)
        if plugin is not None:
            return self._entry_of(plugin)
        if name not in self.entries:
            near = get_close_matches(name, self.names, n=1)
            meant = f"; did you mean {near[0]}?" if near else ";"
            raise self._error(f"unknown {self.what} {name!r}{meant} supported: {', '.join(self.names)}")
        return self.entries[name]

    def make(self, settings: ChoiceSettings, *arguments: Any) -> MadeT:
        """Makes the part that `settings` are of.

        Raises:
            NasEdgeError: what the entry raises; `error`, naming the package, when one of another package is broken.
        """
        name = getattr(settings, self.key)
        plugin = self.plugins.find(name)
        if plugin is None:
            return self.find(name).make(settings, *arguments)
        return plugin.call(self._entry_of(plugin).make, self._made or object, settings, *arguments)  # type: ignore[return-value]

    def _entry_of(self, plugin: Plugin) -> Entry[MadeT]:
        offered: Any = plugin.load(object)
        if not isinstance(offered, Entry) and self._adapt is not None and callable(offered):
            return self._adapt(plugin.name, offered)
        return plugin.checked(offered, Entry)

    def default(self) -> Any:
        """The settings of the first entry, as they are when nothing is said; `Any`, for the default of a setting."""
        return self.settings({})

    def settings(self, given: str | Mapping[str, Any]) -> ChoiceSettings:
        """Validates settings on their own.

        Args:
            given: the name, a short form such as `table:FILE`, or the settings by name.

        Raises:
            ConfigError: in one line.
            NasEdgeError: as for `find`.
        """
        try:
            values = self.by_name(given)
            return self.find(values[self.key]).settings.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{self.what}: {one_line(error)}") from None
        except ValueError as error:
            raise ConfigError(f"{self.what}: {error}") from None

    def by_name(self, given: Any, lenient: bool = False) -> Any:
        """Settings by name, of whatever form they are given in; what is none of them is left to validation.

        Raises:
            NasEdgeError: as for `find`, unless `lenient`.
            ValueError: when nothing may follow the name.
        """
        if isinstance(given, ChoiceSettings):
            return given
        if isinstance(given, str):
            given = {self.key: given}
        if not isinstance(given, Mapping):
            raise PydanticCustomError("model_type", f"expected the settings of a {self.what}")
        values = {self.key: next(iter(self.entries)), **given}
        name, colon, rest = str(values[self.key]).partition(":")
        try:
            entry = self.find(name)
        except NasEdgeError:
            if lenient:
                return values
            raise
        values[self.key] = name
        return {**values, **entry.settings.from_text(rest)} if colon else values

    def _tag(self, given: Any) -> str:
        name = str(given.get(self.key) if isinstance(given, Mapping) else getattr(given, self.key, None))
        return f"{self.key}={name}" if name in self._in_union else _PLUGIN

    def _of_plugin(self, foreign: type[ChoiceSettings], given: Any, info: ValidationInfo) -> ChoiceSettings:
        if isinstance(given, ChoiceSettings):
            return given
        assert isinstance(given, Mapping)
        try:
            return self.find(given[self.key]).settings.model_validate(given, context=info.context)
        except ValidationError as error:
            raise ValueError(one_line(error)) from None
        except NasEdgeError:
            if not _is_lenient(info):
                raise
            return foreign.model_validate(given, context=info.context)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The discriminated union of all entries' settings; `source` is what they have in common."""
        self._in_union = frozenset(self.entries)
        choices: list[Any] = [
            Annotated[entry.settings, Tag(f"{self.key}={name}")] for name, entry in self.entries.items()
        ]
        dumped = PlainSerializer(lambda settings: settings.model_dump(mode="json"))
        of_plugin = PlainValidator(partial(self._of_plugin, _foreign(source)))
        choices.append(Annotated[ChoiceSettings, of_plugin, dumped, Tag(_PLUGIN)])
        union = Annotated[Union[tuple(choices)], Discriminator(self._tag)]  # type: ignore[valid-type] # noqa: UP007 - made of a list
        return core_schema.with_info_before_validator_function(self._chosen, handler.generate_schema(union))

    def _chosen(self, given: Any, info: ValidationInfo) -> Any:
        """As `by_name`; pydantic adds where the setting is to the message."""
        try:
            return self.by_name(given, _is_lenient(info))
        except NasEdgeError as error:
            raise ValueError(str(error)) from None


def _foreign(common: type[ChoiceSettings]) -> type[ChoiceSettings]:
    """The settings of an entry that is not there, because its package is not installed: a run can be looked at without.

    Args:
        common: what all settings of the table have; what else there is, is kept as it is.
    """

    class Foreign(common):  # type: ignore[misc, valid-type] # which one it is, the table knows
        model_config = ConfigDict(extra="allow")

    return Foreign


# The validation context under which settings of entries that are not there are accepted.
LENIENT = {"lenient": True}


def _is_lenient(info: Any) -> bool:
    return bool(info.context == LENIENT)


def setting_path(location: tuple[int | str, ...]) -> str:
    """Where in the settings an error is, without the names of the unions' members."""
    return ".".join(str(part) for part in location if "=" not in str(part) and part != _PLUGIN)


def one_line(error: ValidationError) -> str:
    """The first thing that is wrong, in one line."""
    first = error.errors()[0]
    path = setting_path(first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown setting {path!r}; see `nas-edge search --list-settings`"
    message = first["msg"].removeprefix("Value error, ")
    return f"{path}: {message[:1].lower()}{message[1:]}" if path else message

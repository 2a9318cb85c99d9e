"""Tables of interchangeable parts: chosen by name, wrong settings told in one line, other packages' parts too."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import Field, ValidationError

from nas_edge.errors import ConfigError, NasEdgeError
from nas_edge.registry import LENIENT, Entry, Registry, one_line, setting_path
from nas_edge.settings import ChoiceSettings, Settings
from tests.support.packages import install

GROUP = "nas_edge.shapes"


class Shape(ChoiceSettings):
    name: str

    @property
    def title(self) -> str:
        return f"a {self.name}"


class Circle(Shape):
    name: str = "circle"
    radius: float = Field(1.0, gt=0)


class File(Shape):
    name: str = "file"
    path: str = Field(min_length=1)
    text_field: ClassVar[str] = "path"


class Pair(Shape):
    name: str = "pair"
    sides: tuple[float, float] = (1.0, 1.0)

    @classmethod
    def from_text(cls, rest: str) -> dict[str, Any]:
        return {"sides": rest.split("x")}


SHAPES: Registry[str] = Registry(
    "name",
    "shape",
    GROUP,
    {
        "circle": Entry(Circle, lambda settings, unit: f"circle of {settings.radius:g} {unit}"),
        "file": Entry(File, lambda settings, unit: f"{settings.path} in {unit}"),
        "pair": Entry(Pair, lambda settings, unit: f"{settings.sides} {unit}"),
    },
    made=str,
    adapt=lambda name, make: Entry(Foreign, lambda settings, unit: make(settings.colour, unit)),
)


class Foreign(Shape):
    colour: str = "red"


class Drawing(Settings):
    shape: Annotated[Shape, SHAPES] = Field(default_factory=SHAPES.default)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    return site


def drawing(shape: Any) -> Drawing:
    return Drawing.model_validate({"shape": shape})


def test_the_first_entry_is_the_default() -> None:
    assert Drawing().shape == Circle() == drawing({}).shape == SHAPES.default()


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("circle", "circle of 1 cm"),
        ({"name": "circle", "radius": 2}, "circle of 2 cm"),
        ({"radius": 2}, "circle of 2 cm"),
        ("file:a:b.svg", "a:b.svg in cm"),
        ("pair:2x3", "(2.0, 3.0) cm"),
        ({"name": "file:x.svg"}, "x.svg in cm"),
        ({"name": "file", "path": "x.svg"}, "x.svg in cm"),
        (Circle(radius=3), "circle of 3 cm"),
    ],
)
def test_parts_are_made_of_settings_in_any_form(given: Any, made: str) -> None:
    shape = drawing(given).shape
    assert SHAPES.make(shape, "cm") == made
    assert drawing(drawing(given).model_dump(mode="json")["shape"]).shape == shape
    if not isinstance(given, ChoiceSettings):
        assert SHAPES.settings(given) == shape


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("square", "unknown shape 'square'; supported: circle, file, pair"),
        ("cirle", "unknown shape 'cirle'; did you mean circle? supported: circle, file, pair"),
        ({"name": "circle", "radius": 0}, "radius: input should be greater than 0"),
        ({"name": "circle", "path": "x"}, "unknown setting 'path'; see `nas-edge search --list-settings`"),
        ("circle:2", "nothing may follow the name, received '2'"),
        ("file:", "path: string should have at least 1 character"),
        ("file", "path: field required"),
    ],
)
def test_what_is_wrong_is_one_line(given: Any, reason: str) -> None:
    with pytest.raises(ConfigError) as alone:
        SHAPES.settings(given)
    assert str(alone.value) in (reason, f"shape: {reason}")
    with pytest.raises(ValidationError) as within:
        drawing(given)
    (line,) = one_line(within.value).splitlines()
    assert line in (f"shape: {reason}", f"shape.{reason}", reason.replace("'path'", "'shape.path'"))
    assert within.value.error_count() == 1, "not one error for each member of the union"


@pytest.mark.parametrize("given", [3, None, ["circle"], 1.5])
def test_what_is_no_settings_at_all_is_refused(given: Any) -> None:
    with pytest.raises(ValidationError, match="expected the settings of a shape"):
        drawing(given)


def test_the_members_of_the_union_are_no_part_of_a_settings_path() -> None:
    with pytest.raises(ValidationError) as error:
        drawing({"name": "circle", "radius": "x"})
    assert setting_path(error.value.errors()[0]["loc"]) == "shape.radius"


SOURCE = """
from nas_edge.registry import Entry
from nas_edge.settings import ChoiceSettings


class Square(ChoiceSettings):
    name: str = "square"
    side: int = 1


def make(settings, unit):
    return f"square of {settings.side} {unit}"


square = Entry(Square, make)
number = 3


def triangle(colour, unit):
    return f"{colour} triangle in {unit}"


def wrong(colour, unit):
    return 3
"""


def test_entries_of_other_packages(site: Path) -> None:
    entries = {"square": "shapes_of_mine:square", "triangle": "shapes_of_mine:triangle"}
    install(site, "my-shapes", {GROUP: entries}, {"shapes_of_mine": SOURCE})
    assert SHAPES.names == ("circle", "file", "pair", "square", "triangle")
    assert SHAPES.make(drawing({"name": "square", "side": 2}).shape, "cm") == "square of 2 cm"
    assert SHAPES.make(drawing("triangle").shape, "cm") == "red triangle in cm", "a plain function will do"
    kept = drawing({"name": "square", "side": 2}).model_dump(mode="json")
    assert kept == {"shape": {"name": "square", "side": 2}}
    assert Drawing.model_validate(kept).model_dump(mode="json") == kept
    with pytest.raises(ValidationError) as error:
        drawing({"name": "square", "side": "x"})
    assert one_line(error.value).startswith("shape: side: input should be a valid integer")


@pytest.mark.parametrize(("name", "reason"), [("number", "expected a Entry, received int"), ("gone", "no attribute")])
def test_an_entry_that_is_none_is_told_with_its_package(site: Path, name: str, reason: str) -> None:
    install(site, "my-shapes", {GROUP: {"odd": f"odd_{name}:{name}"}}, {f"odd_{name}": SOURCE})
    with pytest.raises(ConfigError, match=f"the shape 'odd' of my-shapes 1.0 .* is broken: .*{reason}"):
        SHAPES.find("odd")
    with pytest.raises((NasEdgeError, ValidationError), match=r"of my-shapes 1\.0"):
        drawing("odd")


def test_a_part_of_another_class_is_told_with_its_package(site: Path) -> None:
    install(site, "my-shapes", {GROUP: {"odd": "odd_wrong:wrong"}}, {"odd_wrong": SOURCE})
    with pytest.raises(ConfigError, match=r"the shape 'odd' of my-shapes 1\.0 .* is broken: expected a str, received"):
        SHAPES.make(SHAPES.settings("odd"), "cm")


def test_settings_of_a_package_that_is_gone_can_be_looked_at_and_not_used() -> None:
    kept = {"shape": {"name": "square", "side": 2}}
    with pytest.raises(ValidationError, match="unknown shape 'square'"):
        Drawing.model_validate(kept)
    found = Drawing.model_validate(kept, context=LENIENT)
    assert found.shape.title == "a square", "what all shapes have in common is there"
    assert found.model_dump(mode="json") == kept
    with pytest.raises(ConfigError, match="unknown shape 'square'"):
        SHAPES.make(found.shape, "cm")
    with pytest.raises(ValidationError, match="greater than 0"):
        Drawing.model_validate({"shape": {"name": "circle", "radius": 0}}, context=LENIENT)

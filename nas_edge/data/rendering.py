"""Images drawn by rule: an outline, filled with a pattern, with a glyph on it, among clutter. See `procedural.py`.

A class is a combination of outline, pattern and glyph, of which any two tell the third (a Latin square): a network that
has learned only one of them is right in one image of several, and every part it learns besides adds to its accuracy.
Colours, place, size and rotation say nothing. With the difficulty grow distortion, clutter, occlusion and noise, and
contrast falls.

Beside its class, an image has further targets, see `TARGETS`: which parts its figure is made of, where it is and how
large, for each pixel which outline is seen there, and a box around each figure. Images may have several figures.

An image depends on its rules, part and number alone. Everything is drawn in the plane that the image shows, from -1 to
1 in both directions, by distances to edges, so that an image has any size; one of 48 pixels takes a millisecond.

Run as a program, it writes some of the images to its standard output; `procedural.py` starts several.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nas_edge.data.targets import NONE

# Another number when the images of the same rules are others: kept images are then drawn again.
RENDERING = 1

# Images that a process draws before it hands them over.
IMAGES_PER_BLOCK = 32

Part: TypeAlias = Literal["train", "test"]
Plane: TypeAlias = NDArray[Any]  # float32 [size, size], or what broadcasts to it
Image: TypeAlias = NDArray[Any]  # float32 [size, size, 3], 0 to 1


@dataclass(frozen=True)
class Rules:
    """What determines every image.

    Attributes:
        size: side of the square images, pixels.
        classes: how many there are, 2 to `MOST_CLASSES`.
        difficulty: 0 to 1.
        seed: of the images; classes do not depend on it.
        figures: largest number per image. A single one is large and is what is to be recognised; several are smaller.
    """

    size: int
    classes: int
    difficulty: float
    seed: int
    figures: int = 1


# ---------------------------------------------------------------- what classes are made of


def _polygon(angle: Plane, corners: int) -> Plane:
    step = 2 * math.pi / corners
    return math.cos(step / 2) / np.cos(angle % step - step / 2)


def _star(angle: Plane, points: int) -> Plane:
    step = 2 * math.pi / points
    return 1 - 1.1 * np.abs(angle % step / step - 0.5)


def _flower(angle: Plane, petals: int) -> Plane:
    return 0.8 + 0.2 * np.cos(petals * angle)  # type: ignore[no-any-return]


# Distance of the edge from the centre, by the angle.
_OUTLINES: dict[str, tuple[Callable[[Plane, int], Plane], int]] = {
    "triangle": (_polygon, 3),
    "star": (_star, 5),
    "square": (_polygon, 4),
    "flower": (_flower, 5),
    "cross": (_star, 4),
    "clover": (_flower, 3),
    "hexagon": (_polygon, 6),
    "quatrefoil": (_flower, 4),
    "propeller": (_star, 3),
    "sun": (_star, 7),
}


def _stripes(u: Plane, v: Plane) -> Plane:
    return np.sin(u)


def _checks(u: Plane, v: Plane) -> Plane:
    return 2.5 * np.sin(0.8 * u) * np.sin(0.8 * v)


def _waves(u: Plane, v: Plane) -> Plane:
    return np.sin(u + 1.5 * np.sin(0.7 * v))


def _dots(u: Plane, v: Plane) -> Plane:
    return 2 * (np.cos(u) + np.cos(v)) - 1.5


def _grid(u: Plane, v: Plane) -> Plane:
    return 3 * np.maximum(np.cos(0.8 * u), np.cos(0.8 * v)) - 1.8


def _rings(u: Plane, v: Plane) -> Plane:
    return np.sin(1.1 * np.hypot(u, v))


def _chevrons(u: Plane, v: Plane) -> Plane:
    return np.sin(u + 4 * np.abs((0.22 * v) % 2 - 1))  # type: ignore[no-any-return]


def _bricks(u: Plane, v: Plane) -> Plane:
    row = np.floor(0.2 * v)
    to_joint = np.minimum((0.2 * v) % 1, (0.11 * u + row / 2) % 1 * 1.8)
    return np.where(to_joint < 0.25, np.float32(1), np.float32(-1))  # type: ignore[no-any-return]


def _honeycomb(u: Plane, v: Plane) -> Plane:
    return np.cos(u) + np.cos(0.5 * u + 0.866 * v) + np.cos(0.5 * u - 0.866 * v)


def _marble(u: Plane, v: Plane) -> Plane:
    return np.sin(0.6 * u + 2 * np.sin(0.5 * v)) + np.sin(0.6 * v + 2 * np.sin(0.45 * u))  # type: ignore[no-any-return]


# How much of the second colour, about -1 to 1.
_PATTERNS: dict[str, Callable[[Plane, Plane], Plane]] = {
    "stripes": _stripes,
    "checks": _checks,
    "waves": _waves,
    "dots": _dots,
    "grid": _grid,
    "rings": _rings,
    "chevrons": _chevrons,
    "bricks": _bricks,
    "honeycomb": _honeycomb,
    "marble": _marble,
}

# Lines through points, in eighths of the plane.
_GLYPHS: dict[str, tuple[tuple[tuple[int, int], ...], ...]] = {
    "L": (((-6, -8), (-6, 8), (6, 8)),),
    "T": (((-7, -8), (7, -8)), ((0, -8), (0, 8))),
    "X": (((-6, -8), (6, 8)), ((6, -8), (-6, 8))),
    "U": (((-6, -8), (-6, 8), (6, 8), (6, -8)),),
    "Z": (((-6, -8), (6, -8), (-6, 8), (6, 8)),),
    "A": (((-6, 8), (0, -8), (6, 8)), ((-4, 2), (4, 2))),
    "F": (((-6, 8), (-6, -8), (6, -8)), ((-6, 0), (4, 0))),
    "H": (((-6, -8), (-6, 8)), ((6, -8), (6, 8)), ((-6, 0), (6, 0))),
    "Y": (((-6, -8), (0, 0), (6, -8)), ((0, 0), (0, 8))),
    "K": (((-6, -8), (-6, 8)), ((6, -8), (-6, 0), (6, 8))),
}

MOST_CLASSES = len(_OUTLINES) * len(_PATTERNS)

# Half of the side of a figure among several, in halves of the image's side.
_SMALLER = 0.25, 0.5

# Figures of which a smaller share of the pixels is visible are ignored.
_LEAST_SEEN = 0.25


def most_clutter(difficulty: float) -> int:
    """How many smaller figures there may be beside those that are to be recognised."""
    return round(6 * difficulty)


@dataclass(frozen=True)
class Figure:
    """What is recognised in an image: names of an outline, a pattern and a glyph."""

    outline: str
    pattern: str
    glyph: str

    def __str__(self) -> str:
        return f"{self.outline} of {self.pattern} with {self.glyph}"


@lru_cache
def figures(classes: int) -> tuple[Figure, ...]:
    """The figure of every class."""
    side = _side(classes)
    outlines, patterns, glyphs = list(_OUTLINES), list(_PATTERNS), list(_GLYPHS)
    places = (divmod(label, side) for label in range(classes))
    return tuple(Figure(outlines[i], patterns[j], glyphs[(i + j) % side]) for j, i in places)


def _side(classes: int) -> int:
    """How many outlines, patterns and glyphs there are for so many classes."""
    return next(side for side in range(2, classes + 2) if side * side >= classes)


def _parts(classes: int) -> tuple[list[str], list[str], list[str]]:
    """The outlines, patterns and glyphs of so many classes."""
    side = _side(classes)
    return list(_OUTLINES)[:side], list(_PATTERNS)[:side], list(_GLYPHS)[:side]


# ---------------------------------------------------------------- one image


@dataclass(frozen=True)
class Drawn:
    """An image, and what is in it.

    Attributes:
        pixels: `uint8 [size, size, 3]`.
        figure: that is to be recognised.
        place: where its middle is, and half of its side: right and down of the image's middle, and the size, in
            halves of the image's side.
        outlines: for each pixel the outline of the figure that is seen there, counted from 1, or 0; `uint8
            [size, size]`. Smaller figures, which clutter the image, have outlines, too.
        boxes: around what is seen of each figure, see `boxes.py`, float32 `[figures, 6]`; the class is the outline,
            counted from 0. Ignored is that of a figure of which little is seen.
    """

    pixels: NDArray[np.uint8]
    figure: Figure
    place: tuple[float, float, float]
    outlines: NDArray[np.uint8]
    boxes: NDArray[np.float32]


def draw(rules: Rules, part: Part, number: int) -> Drawn:
    """One image of class `label_of(rules, number)`, and what is in it."""
    rng = np.random.default_rng([rules.seed, ("train", "test").index(part), number])
    known = figures(rules.classes)
    others = [known[i] for i in rng.integers(len(known), size=rng.integers(rules.figures))] if rules.figures > 1 else []
    return _Canvas(rules, rng).drawn(known[label_of(rules, number)], others)


def render(rules: Rules, part: Part, number: int) -> NDArray[np.uint8]:
    """One image, `uint8 [size, size, 3]`."""
    return draw(rules, part, number).pixels


def label_of(rules: Rules, number: int) -> int:
    """The class of an image: one after another, so that none has more than one image more than another."""
    return number % rules.classes


class _Canvas:
    """An image while it is drawn, back to front."""

    def __init__(self, rules: Rules, rng: np.random.Generator) -> None:
        self._rng, self._size, self._difficulty = rng, rules.size, rules.difficulty
        self._known = _parts(rules.classes)
        self._outlines = np.zeros((self._size, self._size), np.uint8)
        # The figure visible in each pixel, counted from 1; for each figure its outline and number of pixels.
        self._figures = np.zeros((self._size, self._size), np.uint8)
        self._drawn: list[tuple[int, int]] = []
        self._contrast = 0.7 - 0.3 * self._difficulty
        self._pixel = 2 / rules.size
        warp = 0.03 + 0.07 * self._difficulty
        along = (np.arange(self._size, dtype=np.float32) + 0.5) * self._pixel - 1
        self._x: Plane = along[None, :] + warp * self._smooth(4)
        self._y: Plane = along[:, None] + warp * self._smooth(4)

    def drawn(self, figure: Figure, others: Sequence[Figure] = ()) -> Drawn:
        rng, difficulty = self._rng, self._difficulty
        image = self._ground()
        for _ in range(rng.integers(1 + most_clutter(difficulty))):
            names = (str(rng.choice(known)) for known in self._known)
            self._put(image, Figure(*names), 1.0, rng.uniform(0.12, 0.3), rng.uniform(-math.pi, math.pi))
        turned = 0.2 + 0.6 * difficulty
        for other in others:
            scale = rng.uniform(*_SMALLER)
            self._put(image, other, 1.05 - scale, scale, rng.uniform(-turned, turned))
        scale = rng.uniform(*_SMALLER) if others else rng.uniform(0.85 - 0.25 * difficulty, 0.95)
        x, y = self._put(image, figure, max(0.05, 1.05 - scale), scale, rng.uniform(-turned, turned))
        for _ in range(rng.integers(1 + round(3 * difficulty))):
            self._cover(image)
        image += (0.02 + 0.08 * difficulty) * rng.standard_normal(image.shape, np.float32)
        pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
        return Drawn(pixels, figure, (x, y, scale), self._outlines, self._boxes())

    def _boxes(self) -> NDArray[np.float32]:
        """Around the pixels of each figure that are seen; see `Drawn.boxes`."""
        found = []
        for number, (outline, pixels) in enumerate(self._drawn, start=1):
            rows, columns = np.nonzero(self._figures == number)
            if len(rows):
                ends = columns.max() + 1, rows.max() + 1
                found.append((outline, columns.min(), rows.min(), *ends, len(rows) < _LEAST_SEEN * pixels))
        return np.array(found, np.float32).reshape(-1, 6)

    def _ground(self) -> Image:
        """Two colours, mixed by clouds and, where it is difficult, by one of the patterns."""
        rng = self._rng
        u, v = _turned(self._x, self._y, rng.uniform(-math.pi, math.pi))
        pattern = _PATTERNS[str(rng.choice(self._known[1]))](*self._waves(u, v, rng.uniform(8, 18)))
        clouds = self._smooth(6)
        return self._mixed(0.5 + 0.2 * self._difficulty * pattern + 0.2 * clouds)

    def _put(self, image: Image, figure: Figure, room: float, scale: float, turn: float) -> tuple[float, float]:
        """Draws a figure, and returns where its middle is.

        Args:
            image: is drawn on.
            figure: what is drawn.
            room: how far it may be from the middle, in each direction.
            scale: half of its side.
            turn: how far it is rotated, radians.
        """
        rng, pixel = self._rng, self._pixel / scale
        x, y = (rng.uniform(-room, room) for _ in range(2))
        u, v = _turned((self._x - x) / scale, (self._y - y) / scale, turn)
        radius, count = _OUTLINES[figure.outline]
        to_edge = np.hypot(u, v) - radius(np.arctan2(u, -v), count)
        # Rings are seen by their centre.
        across, along = (u, v) if figure.pattern == "rings" else _turned(u, v, rng.uniform(-0.4, 0.4))
        moved = 0.0 if figure.pattern == "rings" else 2.0
        fill = _PATTERNS[figure.pattern](*self._waves(across, along, rng.uniform(10, 14), moved))
        body = self._mixed(0.5 + 0.8 * fill)
        ink = np.float32(rng.uniform(0, 0.12) + 0.88 * (rng.random() < 0.5))
        _lay(body, ink, _filled(_to_glyph(u / 0.42, v / 0.42, figure.glyph) - 0.3, pixel / 0.42))
        _lay(body, 1 - ink, _filled(-0.1 - to_edge, pixel))
        opacity = _filled(to_edge, pixel)
        _lay(image, body, opacity)
        seen, outline = opacity >= 0.5, self._known[0].index(figure.outline)
        self._outlines[seen] = 1 + outline
        self._drawn.append((outline, int(seen.sum())))
        self._figures[seen] = len(self._drawn)
        return x, y

    def _cover(self, image: Image) -> None:
        """Draws a band of one colour across everything."""
        rng = self._rng
        across, _ = _turned(self._x, self._y, rng.uniform(-math.pi, math.pi))
        distance = np.abs(across - rng.uniform(-0.8, 0.8)) - rng.uniform(0.03, 0.12)
        opacity = _filled(distance, self._pixel)
        _lay(image, rng.random(3, np.float32), opacity)
        self._outlines[opacity >= 0.5] = 0
        self._figures[opacity >= 0.5] = 0

    def _waves(self, u: Plane, v: Plane, per_unit: float, moved: float = 2.0) -> tuple[Plane, Plane]:
        """Coordinates in which a pattern repeats about every 2 pi, from a random place."""
        return per_unit * (u + self._rng.uniform(0, moved)), per_unit * (v + self._rng.uniform(0, moved))

    def _mixed(self, share: Plane) -> Image:
        """Two random colours, as different as the contrast wants, the second one with that share."""
        middle = self._rng.uniform(0.25, 0.75, 3)
        apart = self._rng.uniform(0.3, 1, 3) * (self._contrast * (-1 if self._rng.random() < 0.5 else 1))
        first = (middle - apart / 2).astype(np.float32)
        return first + apart.astype(np.float32) * np.clip(share, 0, 1).astype(np.float32)[..., None]

    def _smooth(self, cells: int) -> Plane:
        """A random field of about that many hills and valleys on each side, of standard deviation below 1."""
        weights = _spread(self._size, cells)
        field: Plane = weights @ self._rng.standard_normal((cells, cells), np.float32) @ weights.T
        return field


@lru_cache
def _spread(size: int, cells: int) -> Plane:
    """How much each of `cells` points in a row has of each of `size` pixels, `[size, cells]`; rows add up to 1."""
    at = (np.arange(size) + 0.5) / size * (cells - 1)
    away = np.abs(at[:, None] - np.arange(cells))
    weights: Plane = np.where(away < 1, 0.5 + 0.5 * np.cos(np.pi * away), 0).astype(np.float32)
    return weights


def _turned(x: Plane, y: Plane, angle: float) -> tuple[Plane, Plane]:
    cos, sin = math.cos(angle), math.sin(angle)
    return cos * x + sin * y, cos * y - sin * x


def _filled(distance: Plane, pixel: float) -> Plane:
    """1 where a distance to an edge is negative, 0 where it is positive, and between at the edge."""
    return np.clip(0.5 - distance / (1.5 * pixel), 0, 1)


def _lay(image: Image, over: NDArray[np.float32] | np.float32, opacity: Plane) -> None:
    image += (over - image) * opacity[..., None]


def _to_glyph(u: Plane, v: Plane, glyph: str) -> Plane:
    """Distance to the nearest line of a glyph."""
    squares = [_to_segment(u, v, begin, end) for line in _GLYPHS[glyph] for begin, end in pairwise(line)]
    return np.sqrt(np.min(squares, axis=0))  # type: ignore[no-any-return]


def _to_segment(u: Plane, v: Plane, begin: tuple[int, int], end: tuple[int, int]) -> Plane:
    """Squared distance to a segment, its ends in eighths."""
    from_u, from_v = u - begin[0] / 8, v - begin[1] / 8
    along_u, along_v = (end[0] - begin[0]) / 8, (end[1] - begin[1]) / 8
    share = np.clip((from_u * along_u + from_v * along_v) / (along_u**2 + along_v**2), 0, 1)
    return np.square(from_u - share * along_u) + np.square(from_v - share * along_v)


# ---------------------------------------------------------------- targets


@dataclass(frozen=True)
class _Targets:
    """A kind of targets of these images.

    Attributes:
        dtype: NumPy's name.
        shape: of one image's.
        names: of classes, labels or values.
        of: makes one image's.
        of_one: whether they are of the one figure of an image.
    """

    dtype: str
    shape: Callable[[Rules], tuple[int, ...]]
    names: Callable[[Rules], tuple[str, ...]]
    of: Callable[[Rules, int, Drawn], Any]
    of_one: bool = True


def _class_names(rules: Rules) -> tuple[str, ...]:
    return tuple(map(str, figures(rules.classes)))


@lru_cache
def _telling_parts(classes: int) -> tuple[tuple[str, ...], ...]:
    """The outlines, patterns and glyphs that some, but not all, of so many classes have."""
    owned = zip(*((one.outline, one.pattern, one.glyph) for one in figures(classes)), strict=True)
    return tuple(
        tuple(name for name in names if 0 < own.count(name) < classes)
        for names, own in zip(_parts(classes), owned, strict=True)
    )


def _part_names(rules: Rules) -> tuple[str, ...]:
    return tuple(name for names in _telling_parts(rules.classes) for name in names)


def _has_parts(rules: Rules, number: int, drawn: Drawn) -> list[bool]:
    figure = drawn.figure
    own = figure.outline, figure.pattern, figure.glyph
    return [name == mine for mine, names in zip(own, _telling_parts(rules.classes), strict=True) for name in names]


def _outline_names(rules: Rules) -> tuple[str, ...]:
    return ("background", *_parts(rules.classes)[0])


def _most_boxes(rules: Rules) -> int:
    return most_clutter(rules.difficulty) + rules.figures


def _all_boxes(rules: Rules, number: int, drawn: Drawn) -> NDArray[np.float32]:
    boxes = np.zeros((_most_boxes(rules), 6), np.float32)
    boxes[len(drawn.boxes) :, 0] = NONE
    boxes[: len(drawn.boxes)] = drawn.boxes
    return boxes


# By the names of `targets.KINDS`: of the figure that is to be recognised its class, whether it has each outline,
# pattern and glyph that tells classes apart, and where it is and how large; of all figures, the outline that is seen in
# each pixel, and boxes.
TARGETS: dict[str, _Targets] = {
    "classes": _Targets("<i4", lambda _: (), _class_names, lambda rules, number, _: label_of(rules, number)),
    "labels": _Targets("|u1", lambda rules: (len(_part_names(rules)),), _part_names, _has_parts),
    "values": _Targets("<f4", lambda _: (3,), lambda _: ("right", "down", "size"), lambda _, __, drawn: drawn.place),
    "masks": _Targets(
        "|u1", lambda rules: (rules.size, rules.size), _outline_names, lambda _, __, drawn: drawn.outlines, of_one=False
    ),
    "boxes": _Targets(
        "<f4",
        lambda rules: (_most_boxes(rules), 6),
        lambda rules: tuple(_parts(rules.classes)[0]),
        _all_boxes,
        of_one=False,
    ),
}


# ---------------------------------------------------------------- many images


def blocks(images: int) -> Iterator[range]:
    """The numbers of so many images, block after block."""
    return (range(i, min(i + IMAGES_PER_BLOCK, images)) for i in range(0, images, IMAGES_PER_BLOCK))


def command(rules: Rules, part: Part, images: int, share: int, shares: int, targets: str = "classes") -> list[str]:
    """What draws every block whose number is `share` modulo `shares`, to be run by a process of its own."""
    which = {"part": part, "images": images, "share": share, "shares": shares, "targets": targets}
    what = {"rules": asdict(rules), **which}
    return [sys.executable, "-m", __name__, json.dumps(what)]


def main() -> None:
    """Writes what `command` asked for to the standard output: block after block, its images and then their targets."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever reads, and ends this one
    what: dict[str, Any] = json.loads(sys.argv[1])
    rules, targets = Rules(**what["rules"]), TARGETS[what["targets"]]
    try:
        for numbers in list(blocks(what["images"]))[what["share"] :: what["shares"]]:
            drawn = [draw(rules, what["part"], number) for number in numbers]
            found = [targets.of(rules, number, one) for number, one in zip(numbers, drawn, strict=True)]
            sys.stdout.buffer.write(np.stack([one.pixels for one in drawn]).tobytes())
            sys.stdout.buffer.write(np.array(found, targets.dtype).tobytes())
            sys.stdout.buffer.flush()
    except BrokenPipeError:
        os._exit(1)  # nobody reads any more; an orderly exit would complain of what is unsent


if __name__ == "__main__":
    main()

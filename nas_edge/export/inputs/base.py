"""`InputKind`: what an app needs to know and to have, to make a network's input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# The manifest's `preprocessing`, see `Preprocessing.manifest`.
Rules = Mapping[str, Any]


@dataclass(frozen=True)
class InputKind:
    """What a bundle says and brings of a way to make inputs.

    Attributes:
        example: what one example is called, for example `image`.
        suffix: of a file with one, which begins with a dot.
        golden: brings a stored example to the form that a bundle holds, given the preprocessing: returns it as it is
            stored then, and the file's content. It raises DataError for what is no example.
        packages: what the bundle's Python programs need beside NumPy and a TFLite runtime, as pip names them.
        steps: how an app makes the values that are normalised, in a sentence each, of the manifest's rules.
        value: what one of these values is called in a formula.
        says: the same in a few words, for tools that read TFLite metadata.
        properties: number of the content's properties in the union of TFLite's metadata schema, and their small numbers
            by field, of the rules.
        kotlin: what makes a `Preprocessing` in Kotlin, of the rules; `MEAN` and `STD` are known there.
        other_source: what examples of another source differ in.
    """

    example: str
    suffix: str
    golden: Callable[[Any, Any], tuple[Any, bytes]]
    packages: Sequence[str]
    steps: Callable[[Rules], Sequence[str]]
    value: str
    says: Callable[[Rules], str]
    properties: Callable[[Rules], tuple[int, Mapping[int, int]]]
    kotlin: Callable[[Rules], str]
    other_source: str

    @property
    def examples(self) -> str:
        """Several of them."""
        return f"{self.example}s"

"""`InputKind`: what an app needs in order to make a network's input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# The manifest's `preprocessing`, see `Preprocessing.manifest`.
Rules = Mapping[str, Any]


@dataclass(frozen=True)
class InputKind:
    """What a bundle says and contains about making inputs of one kind.

    Attributes:
        example: what one example is called, such as `image`.
        suffix: of a file with one, beginning with a dot.
        golden: converts a stored example to the form kept in a bundle, given the preprocessing: returns the converted
            example and the file's content. Raises DataError for an invalid example.
        packages: what the bundle's Python programs require beside NumPy and a TFLite runtime, as pip names them.
        steps: given the manifest's rules, the steps by which an app makes the values to be normalised, a sentence each.
        value: what one of these values is called in a formula.
        says: a short form of the steps, for tools that read TFLite metadata.
        properties: given the rules, the type of the content's properties in the union of TFLite's metadata schema, and
            their numbers by field.
        kotlin: given the rules, the Kotlin expression that makes a `Preprocessing`; it may use `MEAN` and `STD`.
        other_source: how examples from another source may differ.
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

"""The code blocks of a Markdown page, and how they are run.

```python             run, in the page's namespace
```python FILE        written to that file of the page's folder; so are toml, yaml and json
```sh                 each line a command
```sh phone           not run, because a phone would be needed; that its options exist is tested
```sh farm            the same, of several hosts
```sh photos          the same, of a folder of images and hours
```text               what something prints; neither run nor compared
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: the file it is in.
        line: its first line, from 1.
        language: first word after the fence.
        marks: the other words.
        text: what it holds.
    """

    page: Path
    line: int
    language: str
    marks: tuple[str, ...]
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """The commands of a shell block."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = []
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type == "fence":
            language, *marks = token.info.split() or [""]
            assert token.map is not None
            found.append(Block(page, token.map[0] + 1, language, tuple(marks), token.content))
    return found


def commands_of(page: Path) -> list[list[str]]:
    """Every `nas-edge ...` of a page, in its shell blocks and in its text."""
    in_blocks = [words for block in blocks_of(page) if block.language == "sh" for words in block.commands]
    in_text = [
        shlex.split(child.content)
        for token in MarkdownIt().parse(page.read_text(encoding="utf-8"))
        for child in token.children or []
        if child.type == "code_inline" and re.match(r"nas-edge \S", child.content)
    ]
    return [words[1:] for words in [*in_blocks, *in_text] if words[0] == "nas-edge"]

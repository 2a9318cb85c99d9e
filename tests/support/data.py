"""Folders that a few tests read: published data sets and real models, and what the tools in tools/ have prepared."""

from __future__ import annotations

import os
from pathlib import Path

# A folder named relatively is one of the repository, not of where the tests were started.
_ROOT = Path(__file__).parents[2]
DATA = (_ROOT / os.environ.get("NAS_EDGE_DATA", "../shared/data")).resolve()
NO_DATA = f"{DATA} is not a directory; set NAS_EDGE_DATA to the data folder"
# Read here, before the fixture `home` replaces what it depends on.
CACHE = os.environ.get("NAS_EDGE_CACHE") or str(Path("~/.cache/nas_edge").expanduser())

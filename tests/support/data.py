"""The folder of published data sets and real models that a few tests read."""

from __future__ import annotations

import os
from pathlib import Path

# A folder named relatively is one of the repository, not of where the tests were started.
_ROOT = Path(__file__).parents[2]
DATA = (_ROOT / os.environ.get("NAS_EDGE_DATA", "../shared/data")).resolve()
NO_DATA = f"{DATA} is not a directory; set NAS_EDGE_DATA to the data folder"

"""What bundles say and contain about making inputs, by `Preprocessing.kind`.

A new kind is one file with an `InputKind`, a folder with its programs for apps in `app_files/inputs/`, and one line
here.
"""

from __future__ import annotations

from collections.abc import Mapping

from nas_edge.export.inputs.base import InputKind
from nas_edge.export.inputs.image import IMAGE
from nas_edge.export.inputs.log_mel import LOG_MEL

INPUTS: Mapping[str, InputKind] = {"image": IMAGE, "log-mel": LOG_MEL}

__all__ = ["INPUTS", "InputKind"]

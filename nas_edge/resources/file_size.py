"""The size of the TFLite file: for a candidate the one that is measured, at delivery the one that ships.

The two differ a little: the delivered file has metadata, and the quantisation of trained weights.
"""

from __future__ import annotations

from nas_edge.resources.base import COMPUTED, MEASURED, Resource, ResourceUse, Used


def _use(used: Used) -> ResourceUse:
    if used.file is None:
        return ResourceUse(None, COMPUTED, "the space describes no networks")
    return ResourceUse(float(len(used.file)), MEASURED, "the TFLite file")


FILE_SIZE = Resource("size of the TFLite file", "bytes", _use)

"""Primitive layers, one file each: all that the project knows of a layer is said by its class.

`Primitive` is what such a class promises; `nas_edge.testing.check_layer` tests it. A primitive of this package gets one
line in `nas_edge.networks.layers`; one of another package needs none, its spaces just use it.
"""

from nas_edge.networks.primitives.base import IN, OUT, Primitive, Shape, Weight

__all__ = ["IN", "OUT", "Primitive", "Shape", "Weight"]

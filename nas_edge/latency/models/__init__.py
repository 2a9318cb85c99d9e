"""Models of the latencies of a device. A new kind is one file and one line in `PREDICTORS`.

decisions   a bias and what each choice of a space adds, as TuNAS' published tables
operators   a time for each operator, rates for those that were never measured
features    rates of operators, corrected by a Gaussian process
blocks      a time for each inverted bottleneck, as published tables have them; imported, not fitted
adapted     a model of one device brought to another by a few measurements
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypeAlias, Union

from pydantic import Discriminator

from nas_edge.latency.models.adapted import AdaptedModel
from nas_edge.latency.models.blocks import BlockTable
from nas_edge.latency.models.decisions import DecisionModel
from nas_edge.latency.models.features import FeatureModel
from nas_edge.latency.models.operators import OperatorTable
from nas_edge.latency.models.predictor import Predictor

PREDICTORS: Mapping[str, type[Predictor]] = {
    "decisions": DecisionModel,
    "operators": OperatorTable,
    "features": FeatureModel,
    "blocks": BlockTable,
    "adapted": AdaptedModel,
}

# What a file may hold: any of them, told apart by its `kind`.
AnyPredictor: TypeAlias = Annotated[  # type: ignore[valid-type]
    Union[tuple(PREDICTORS.values())],  # noqa: UP007 - made of a table
    Discriminator("kind"),
]

"""Tasks, and what their networks are trained with."""

from __future__ import annotations

from nas_edge.tasks.classification import Classification, ClassificationSettings
from nas_edge.training.settings import OptimizationSettings

CLASSIFICATION = Classification(ClassificationSettings())
OPTIMIZATION = OptimizationSettings(weight_decay=1e-5)

"""RMSProp as TensorFlow 1 defines it, which is what TuNAS trains its weights with.

`keras.optimizers.RMSprop` starts the mean square at zero, so its first steps are far larger, and its default epsilon
is 1e-7. With epsilon 1, inside the root, a step is close to that of SGD with momentum while gradients are small, and
bounded when they are large.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="nas_edge")
class RMSProp(keras.optimizers.Optimizer):  # type: ignore[misc] # Keras ships no types.
    """RMSProp with momentum, TensorFlow 1 semantics.

    For a gradient g of a variable, all element-wise:

        ms  <- decay * ms + (1 - decay) * g^2             ms starts at 1
        mom <- momentum * mom + lr * g / sqrt(ms + eps)   mom starts at 0
        variable <- variable - mom

    The learning rate of each step thus stays in the momentum. `save_own_variables` and `load_own_variables` (or
    `variables`) hold the whole state, so a restored optimiser continues exactly.

    Args:
        learning_rate: a number or a schedule of the step.
        decay: of the mean square.
        momentum: of the update.
        epsilon: added to the mean square, inside the root.
        name: of the optimiser.

    Source: `tf.compat.v1.train.RMSPropOptimizer`; values from the TuNAS reference code.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.165,
        decay: float = 0.9,
        momentum: float = 0.9,
        epsilon: float = 1.0,
        name: str = "rmsprop_tf1",
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name)
        self.decay = decay
        self.momentum = momentum
        self.epsilon = epsilon

    def build(self, var_list: list[Any]) -> None:
        """Creates the state of every variable."""
        if self.built:
            return
        super().build(var_list)
        self._mean_squares = self.add_optimizer_variables(var_list, "mean_square", initializer="ones")
        self._updates = self.add_optimizer_variables(var_list, "update")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One update of one variable."""
        index = self._get_variable_index(variable)
        # TensorFlow's own kernel: one pass over each variable instead of a dozen.
        tf.raw_ops.ResourceApplyRMSProp(
            var=variable.handle,
            ms=self._mean_squares[index].value.handle,
            mom=self._updates[index].value.handle,
            lr=tf.cast(learning_rate, variable.dtype),
            rho=self.decay,
            momentum=self.momentum,
            epsilon=self.epsilon,
            grad=tf.convert_to_tensor(gradient),  # a sparse gradient becomes dense
        )

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        return {
            "learning_rate": super().get_config()["learning_rate"],
            "decay": self.decay,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "name": self.name,
        }

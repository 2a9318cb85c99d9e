"""The network that teaches, where the training method asks for one: the largest of the space, trained once per search.

teacher/RECIPE.npz     its weights, named after how it was trained; searches for several targets, and networks that
are delivered later, share them
stages/teacher.json    what it is, in each run that was taught by it
"""

from __future__ import annotations

from nas_edge.errors import ConfigError, TrainingError
from nas_edge.networks.graph import Weights
from nas_edge.runs.teacher import TeacherFacts, read_teacher, write_teacher
from nas_edge.spaces.decisions import NetworkSpace
from nas_edge.spaces.extremes import largest
from nas_edge.stages.contender import Contender
from nas_edge.stages.context import RunContext
from nas_edge.stages.training import digest, slower, train, validation_quality
from nas_edge.training.context import Teacher


def teacher_of(context: RunContext) -> Teacher | None:
    """The network that teaches, trained unless it was before; None for a method without one.

    Raises:
        ConfigError: for a space that has no largest network.
        TrainingError: when its training diverges.
    """
    settings, space = context.config.training.teacher, context.space
    if settings is None:
        return None
    if not isinstance(space, NetworkSpace):
        raise ConfigError(
            f"training.method={context.config.training.method} learns from the largest network, which {space.name} "
            "does not have",
            fix="choose another method",
        )
    architecture = space.canonical(largest(space))
    network = space.build(architecture).needed_network()

    def trained() -> Weights:
        try:
            return train(context, Contender("teacher", str(architecture), None, network), settings, None)
        except TrainingError as error:
            raise TrainingError(f"the teacher: {error}, for example: {slower(context)}") from None

    name = digest({"teacher": settings.model_dump(mode="json"), "init": context.config.init})
    weights = context.home.weights_once(f"teacher/{name}.npz", trained)
    known = read_teacher(context.run)
    if known is None or known.recipe != name:
        quality = validation_quality(context, network, weights)
        write_teacher(context.run, TeacherFacts(name, str(architecture), quality))
    return Teacher(network, weights)

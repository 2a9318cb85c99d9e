"""What a search space promises."""

from __future__ import annotations

import numpy as np

from nas_edge.networks.tflite_model import tflite_model
from nas_edge.spaces import MakeSpace
from nas_edge.spaces.decisions import Architecture, NetworkSpace
from nas_edge.testing.expect import expect, expect_no_error

_CLASSES = 7


def check_space(make_space: MakeSpace, input_size: int = 32) -> None:
    """Checks a search space; takes seconds.

    Args:
        make_space: called with input size, width multiplier, classes and channels, as a run does.
        input_size: an input that the space accepts; small ones are quicker.

    Raises:
        AssertionError: naming the promise that is broken.
    """
    for channels in (1, 3):
        for width_multiplier in (0.5, 1.0):
            with expect_no_error(f"making the space with ({input_size}, {width_multiplier}, {_CLASSES}, {channels})"):
                space = make_space(input_size, width_multiplier, _CLASSES, channels)
            _check_kind(space, (input_size, input_size, channels))
            _check_architectures(space, samples=5)
    _check_same_again(space, make_space(input_size, 1.0, _CLASSES, 3))
    _check_choices_matter(space)
    _check_files(space)


def check_supernet(make_space: MakeSpace, input_size: int = 32) -> None:
    """Checks that the shared weights compute what the stand-alone networks do; needs TensorFlow, takes up to a minute.

    Args:
        make_space: as for `check_space`.
        input_size: as for `check_space`.

    Raises:
        AssertionError: naming the promise that is broken.
    """
    import tensorflow as tf

    from nas_edge.networks.keras_model import keras_model
    from nas_edge.supernet.supernet import Supernet, one_hot_masks

    space = make_space(input_size, 0.5, _CLASSES, 3)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(4, *space.input_shape)).astype(np.float32)
    with expect_no_error("building the supernet: choices of one decision must end in the same shape"):
        supernet = Supernet(space, seed=1)
        step = tf.function(lambda masks: supernet(tf.constant(images), masks)[0], autograph=False)
        for architecture in [space.sample(rng) for _ in range(3)]:
            logits = step(tf.constant(one_hot_masks(space, architecture))).numpy()
            network = space.decode(architecture)
            model = keras_model(network, supernet.weights_of(network))
            for layer in model.layers:
                if type(layer).__name__ == "Dropout":
                    layer.rate = 0.0
            alone = model(images, training=True).numpy()
            expect(
                np.allclose(logits, alone, rtol=1e-3, atol=1e-3),
                f"architecture {architecture} computes something else in the supernet than alone: outputs differ by "
                f"{np.abs(logits - alone).max():.3g}",
            )
        mixed = one_hot_masks(space, Architecture((0,) * len(space.decisions)))
        for row, decision in zip(mixed, space.decisions, strict=True):
            if decision.kind == "op":
                row[: len(decision.choices)] = 1 / len(decision.choices)
        expect(bool(np.isfinite(step(tf.constant(mixed)).numpy()).all()), "under warm-up, outputs are not finite")


def _check_kind(space: NetworkSpace, input_shape: tuple[int, int, int]) -> None:
    expect(isinstance(space, NetworkSpace), f"expected a NetworkSpace, received {type(space).__name__}")
    expect(bool(space.name), "the space has no name")
    expect(
        space.input_shape == input_shape and space.outputs == _CLASSES,
        f"the space must have the input and classes that were asked for: expected {input_shape} and {_CLASSES}, "
        f"received {space.input_shape} and {space.outputs}",
    )
    expect(space.size > 1, "no decision has more than one choice, so there is nothing to search")


def _check_architectures(space: NetworkSpace, samples: int) -> None:
    rng = np.random.default_rng(0)
    sizes = [len(decision.choices) for decision in space.decisions]
    extremes = [Architecture((0,) * len(sizes)), Architecture(tuple(size - 1 for size in sizes))]
    for architecture in [*extremes, *(space.sample(rng) for _ in range(samples))]:
        with expect_no_error(f"decoding architecture {architecture}"):
            network = space.decode(architecture)
        expect(
            network.output_shape == (space.outputs,),
            f"architecture {architecture} must end in one output per class, [{space.outputs}]: received "
            f"{list(network.output_shape)}",
        )
        expect(space.parse(str(architecture)) == architecture, f"{architecture} is not read back from its text")
        expect(
            space.decode(space.canonical(architecture)).fingerprint == network.fingerprint,
            f"architecture {architecture} is another network once its inactive decisions are set to 0",
        )


def _check_same_again(space: NetworkSpace, again: NetworkSpace) -> None:
    expect(
        space.decisions == again.decisions,
        "made twice, the space has other decisions or another order: a run could not be resumed",
    )
    architecture = space.sample(np.random.default_rng(1))
    expect(
        space.decode(architecture).fingerprint == again.decode(architecture).fingerprint,
        f"made twice, the space makes other networks of architecture {architecture}",
    )


def _check_choices_matter(space: NetworkSpace) -> None:
    """Two choices that make the same network would be measured and learned twice."""
    centre = Architecture((0,) * len(space.decisions))
    for i, (decision, active) in enumerate(zip(space.decisions, space.active(centre), strict=True)):
        if not active:
            continue
        seen: dict[str, int] = {}
        for choice in range(len(decision.choices)):
            changed = Architecture((*centre.choices[:i], choice, *centre.choices[i + 1 :]))
            other = seen.setdefault(space.decode(changed).fingerprint, choice)
            expect(
                other == choice,
                f"choices {decision.choices[other]!r} and {decision.choices[choice]!r} of {decision.path} make the "
                "same network",
            )


def _check_files(space: NetworkSpace) -> None:
    architecture = space.sample(np.random.default_rng(2))
    for precision in ("float32", "int8"):
        with expect_no_error(f"writing architecture {architecture} as {precision} TFLite"):
            tflite_model(space.decode(architecture), precision)

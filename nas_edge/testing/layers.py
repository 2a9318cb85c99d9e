"""What a primitive layer promises: that it is the same layer everywhere."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_edge.networks import layers as L
from nas_edge.networks.analysis import weight_shapes
from nas_edge.networks.graph import GraphBuilder, NetworkSpec, Shape, Weights
from nas_edge.networks.open_values import resolve_width
from nas_edge.networks.precisions import Precision
from nas_edge.networks.primitives import Primitive
from nas_edge.networks.tflite_model import operators, tflite_model
from nas_edge.quiet import held_stderr
from nas_edge.testing.expect import expect, expect_no_error

if TYPE_CHECKING:
    import keras

Array = np.ndarray[Any, Any]

# How far int8 outputs may be from float ones, as a share of the output's range, on average.
_INT8_TOLERANCE = 0.02


def check_layer(layer: Primitive, input_shape: Shape = (8, 8, 16)) -> None:
    """Checks a primitive that reads one input; needs TensorFlow, takes seconds.

    The layer is put behind a 1x1 convolution, so that what it fuses with that is tested too.

    Args:
        layer: every number decided.
        input_shape: `[height, width, channels]` that it accepts, channels a multiple of 4.

    Raises:
        AssertionError: naming the promise that is broken.
    """
    from nas_edge.networks.keras_model import get_weights, keras_model

    with expect_no_error("hashing the layer, as sharing compiled functions needs"):
        hash(layer)
    graph = GraphBuilder(input_shape)
    with expect_no_error(f"its shape rule on {list(input_shape)}"):
        graph.add("layer", layer, graph.add("conv", L.Conv2D(input_shape[-1], use_bias=True), "input"))
        spec = graph.build()
    with expect_no_error("the fingerprint: fields must be numbers, texts, booleans or None"):
        _ = spec.fingerprint
    with expect_no_error("making the Keras layer"):
        model = keras_model(spec, seed=1, batch_size=1)
    _check_keras(spec, model)
    images = np.random.default_rng(0).normal(size=(4, *input_shape)).astype(np.float32)
    _randomize(model.get_layer("layer"))
    _check_run(spec, model.get_layer("layer"), images)
    _check_widths(layer, images)
    _check_files(spec, model, get_weights(model, spec), images)


def _check_keras(spec: NetworkSpec, model: keras.Model) -> None:
    node, layer = spec.nodes[-1], model.get_layer("layer")
    expect(
        tuple(layer.output.shape[1:]) == node.shape,
        f"its shape rule says {list(node.shape)}, the Keras layer makes {list(layer.output.shape[1:])}",
    )
    received = [tuple(variable.shape) for variable in layer.weights]
    expect(
        received == weight_shapes(spec, node),
        f"its weights have shapes {weight_shapes(spec, node)}, those of the Keras layer {received}",
    )
    trainable = [weight.trainable for weight in node.layer.weights()]
    expect(
        trainable == [variable.trainable for variable in layer.weights],
        "which of its weights are trainable differs from the Keras layer",
    )
    regularized = [
        variable for weight, variable in zip(node.layer.weights(), layer.weights, strict=True) if weight.regularized
    ]
    expect(
        all(variable is layer.kernel for variable in regularized),
        "weight decay applies to a weight that the Keras layer does not call `kernel`",
    )


def _randomize(layer: keras.layers.Layer) -> None:
    """Moves weights away from values that hide mistakes, such as zero biases; all stay positive that must be."""
    rng = np.random.default_rng(1)
    for variable in layer.weights:
        variable.assign(variable + rng.uniform(0.05, 0.3, variable.shape))


def _check_run(spec: NetworkSpec, layer: keras.layers.Layer, images: Array) -> None:
    primitive = spec.nodes[-1].layer
    weights = tuple(variable.value for variable in layer.weights if variable.trainable)
    with expect_no_error("run"):
        received = np.asarray(primitive.run(weights, images))
    in_training, at_inference = (np.asarray(layer(images, training=training)) for training in (True, False))
    expect(
        any(
            received.shape == expected.shape and np.allclose(received, expected, rtol=1e-4, atol=1e-4)
            for expected in (in_training, at_inference)
        ),
        "run computes something else than the Keras layer, be it in training or at inference",
    )


def _check_widths(layer: Primitive, images: Array) -> None:
    """With some channels inactive, both ways of running a layer agree on the active ones."""
    import tensorflow as tf

    from nas_edge.supernet.elastic import ElasticLayer, active_index, run_elastic, trainable_weights

    most_in = images.shape[-1]
    most_out = resolve_width(layer.width, most_in, None, lambda one_of: max(one_of.numbers()))
    active_in = most_in // 2
    active_out = most_out // 2 if layer.width is not None else active_in
    weights: tuple[Any, ...] = ()
    if trainable_weights(layer):
        elastic = ElasticLayer(layer, most_in, most_out, 1, "layer")
        _randomize(elastic)
        weights = tuple(tf.convert_to_tensor(variable) for variable in elastic.weights)
        shapes = [weight.shape_for(active_in, active_out) for weight in layer.weights()]
        received = [array.shape for array in elastic.active_weights(active_in, active_out)]
        expect(received == shapes, f"its active weights have shapes {received}, expected {shapes}")
    parts = tuple(
        value[active_index(weight, active_in, active_out)]
        for weight, value in zip(trainable_weights(layer), weights, strict=True)
    )
    channels = tf.constant(active_in), tf.constant(active_out)
    masked_images = images * (np.arange(most_in) < active_in)
    with expect_no_error("running it at half its width"):
        sliced, sliced_penalty = run_elastic(layer, parts, images[..., :active_in], *channels, "sliced")
        masked, masked_penalty = run_elastic(layer, weights, masked_images, *channels, "masked")
    expect(sliced.shape[-1] == active_out, f"with {active_out} active channels, it makes {sliced.shape[-1]}")
    expect(
        np.allclose(sliced, masked[..., :active_out], rtol=1e-4, atol=1e-4)
        and np.allclose(sliced_penalty, masked_penalty, rtol=1e-4),
        "its active channels depend on inactive ones: sliced and masked execution differ",
    )


def _check_files(spec: NetworkSpec, model: keras.Model, weights: Weights, images: Array) -> None:
    """The file written directly has the converter's operators, and computes what the Keras model does."""
    expected = np.concatenate([np.asarray(model(image[None], training=False)) for image in images])
    ranges = _ranges(spec, model, images)
    precisions: tuple[Precision, ...] = ("float32", "int8")
    for precision in precisions:
        with expect_no_error(f"writing it as {precision} TFLite"):
            written = tflite_model(spec, precision, weights, ranges)
            tflite_model(spec, precision)
        names, converted = (
            [str(o) for o in operators(file)] for file in (written, _converted(model, precision, images))
        )
        expect(names == converted, f"as {precision}, the converter makes\n{converted}\nand it writes\n{names}")
        received = _run_file(written, images)
        low, high = ranges["layer"]
        tolerance = 1e-4 if precision == "float32" else _INT8_TOLERANCE * (high - low)
        difference = float(np.abs(received - expected).mean())
        expect(
            received.shape == expected.shape and difference <= tolerance,
            f"as {precision}, its outputs differ from the Keras layer by {difference:.3g} on average, "
            f"expected at most {tolerance:.3g}",
        )


def _ranges(spec: NetworkSpec, model: keras.Model, images: Array) -> dict[str, tuple[float, float]]:
    import keras

    outputs = keras.Model(model.input, [model.get_layer(node.name).output for node in spec.nodes])
    values = [outputs(image[None], training=False) for image in images]
    ranges = {"input": (float(images.min()), float(images.max()))}
    for index, node in enumerate(spec.nodes):
        arrays = [np.asarray(one[index]) for one in values]
        ranges[node.name] = (float(min(array.min() for array in arrays)), float(max(array.max() for array in arrays)))
    return ranges


def _converted(model: keras.Model, precision: Precision, images: Array) -> bytes:
    """The file that TensorFlow's converter makes."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    signature = tf.TensorSpec([1, *images.shape[1:]], tf.float32, name="input")
    function = tf.function(lambda image: model(image, training=False), input_signature=[signature])
    # The converter prints, and warns of what this project does on purpose.
    with held_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frozen = convert_variables_to_constants_v2(function.get_concrete_function())
        converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen], tf.Module())
        if precision == "int8":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([image[None]] for image in images)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
        return bytes(converter.convert())


def _run_file(file: bytes, images: Array) -> Array:
    """Outputs of a TFLite file, as real numbers."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=file)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    outputs = []
    for image in images:
        values = image[None]
        if source["dtype"] is np.int8:
            scale, zero_point = source["quantization"]
            values = np.clip(np.rint(values / scale) + zero_point, -128, 127).astype(np.int8)
        interpreter.set_tensor(source["index"], values)
        interpreter.invoke()
        output = interpreter.get_tensor(result["index"]).astype(np.float32)
        if result["dtype"] is np.int8:
            scale, zero_point = result["quantization"]
            output = (output - zero_point) * scale
        outputs.append(output)
    return np.concatenate(outputs)

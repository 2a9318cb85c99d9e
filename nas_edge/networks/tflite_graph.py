"""Operators and tensors of a TFLite file under construction: what primitives add to, and `tflite_model.py` packs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nas_edge.networks.graph import INPUT, NetworkSpec, Node, Shape

Array: TypeAlias = NDArray[Any]

# The schema's options table of an operator, and its fields.
Options: TypeAlias = tuple[str, dict[str, int | float]]


@dataclass(eq=False)
class Tensor:
    """A tensor of the file: an activation, a kernel, a bias or a constant.

    Attributes:
        name: the node whose output it holds, or which owns it.
        shape: with the batch.
        dtype: NumPy's name of the type.
        data: values, for all but activations.
        scale: one value, or one per output channel.
        zero_point: the same for all channels.
        channel_axis: to which axis `scale` belongs when it has several values.
    """

    name: str
    shape: Shape
    dtype: str = "float32"
    data: Array | None = None
    scale: Array | None = None
    zero_point: int = 0
    channel_axis: int = 0


@dataclass(eq=False)
class Operator:
    """An operator of the file.

    Attributes:
        kind: the name in the schema's `BuiltinOperator`.
        inputs: tensors read; source, kernel and bias where there is a kernel.
        output: the tensor written.
        nodes: the nodes it computes.
        options: the schema's options table and its fields.
        fuses_activation: whether the table can say that an activation follows.
        activation: the fused activation's name in the schema.
        activated: whether the operator is such an activation itself.
        kernel_axes: how the axes of the node's kernel are transposed for the file; None without one.
        normalization: the batch norm that is folded into the kernel.
        int8_version: the version of the int8 operator, perhaps depending on its scales (TensorFlow
            `lite/tools/versioning/op_version.cc`); int16 operators have the same.
        float_version: the version of the operator with a float32 output.
        int8_scale: scale and zero point of the int8 output where the runtime's kernels accept no other, or `input` for
            the source's, when values are only moved. None: they follow from the activation range.
    """

    kind: str
    inputs: list[Tensor]
    output: Tensor
    nodes: list[Node]
    options: Options | None = None
    fuses_activation: bool = False
    activation: str = "NONE"
    activated: bool = False
    kernel_axes: tuple[int, ...] | None = None
    normalization: Node | None = None
    int8_version: int | Callable[[Operator], int] = 2
    int8_scale: tuple[float, int] | Literal["input"] | None = None
    float_version: int = 1

    @property
    def version(self) -> int:
        """The operator version that the converter writes."""
        if self.output.dtype == "float32":
            return self.float_version
        return self.int8_version(self) if callable(self.int8_version) else self.int8_version


class TFLiteGraph:
    """Operators and tensors in order.

    Attributes:
        operators: in the order of execution.
        tensors: the tensor that holds each node's output.
        shared_ranges: for tensors that must have the range of another one, written later: that tensor.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        self.input = Tensor(INPUT, (1, *spec.input_shape))
        self.operators: list[Operator] = []
        self.tensors: dict[str, Tensor] = {INPUT: self.input}
        self._node_readers = Counter(name for node in spec.nodes for name in node.inputs)
        self.shared_ranges: dict[Tensor, Tensor] = {}
        self._readers = {self.input: self._node_readers[INPUT]}
        self._writers: dict[Tensor, Operator] = {}
        self._constants: dict[tuple[int, ...], Tensor] = {}
        for node in spec.nodes:
            node.layer.lower(self, node)
        self.output = self.tensors[spec.nodes[-1].name]

    def add(
        self,
        kind: str,
        node: Node,
        inputs: list[Tensor],
        *,
        options: Options | None = None,
        fuses_activation: bool = False,
        int8_version: int | Callable[[Operator], int] = 2,
        int8_scale: tuple[float, int] | Literal["input"] | None = None,
    ) -> Operator:
        """Appends an operator whose output holds `node`'s output; the arguments are `Operator`'s."""
        operator = Operator(
            kind,
            inputs,
            Tensor(node.name, (1, *node.shape)),
            [node],
            options,
            fuses_activation,
            int8_version=int8_version,
            int8_scale=int8_scale,
        )
        self.operators.append(operator)
        self._writers[operator.output] = operator
        self._readers[operator.output] = self._node_readers[node.name]
        self.tensors[node.name] = operator.output
        return operator

    def add_with_kernel(
        self,
        kind: str,
        node: Node,
        kernel_shape: Shape,
        *,
        channel_axis: int,
        kernel_axes: tuple[int, ...],
        options: Options,
        int8_version: int,
    ) -> Operator:
        """Appends an operator with a kernel, a bias and perhaps a fused activation, such as a convolution.

        The node's weights are a kernel and, if it has one, a bias. Their values are filled in later.

        Args:
            kind: as for `add`.
            node: as for `add`.
            kernel_shape: the kernel's shape in the file.
            channel_axis: its axis of output channels.
            kernel_axes: how the axes of the node's kernel are transposed for the file.
            options: as for `add`.
            int8_version: as for `add`.
        """
        kernel = Tensor(f"{node.name}/kernel", kernel_shape, channel_axis=channel_axis)
        bias = Tensor(f"{node.name}/bias", (kernel_shape[channel_axis],))
        inputs = [self.tensors[node.inputs[0]], kernel, bias]
        operator = self.add(kind, node, inputs, options=options, fuses_activation=True, int8_version=int8_version)
        operator.kernel_axes = kernel_axes
        return operator

    def alias(self, node: Node) -> None:
        """Makes `node`'s output the tensor it reads."""
        self.tensors[node.name] = tensor = self.tensors[node.inputs[0]]
        self._readers[tensor] += self._node_readers[node.name] - 1

    def writer_to_fuse(self, node: Node) -> Operator | None:
        """The operator whose output `node` reads, when it is not activated and nothing else reads it."""
        tensor = self.tensors[node.inputs[0]]
        operator = self._writers.get(tensor)
        if operator is None or operator.activation != "NONE":
            return None
        return operator if self._readers[tensor] == 1 else None

    def fuse(self, node: Node, operator: Operator) -> None:
        """Makes `operator` compute `node` as well."""
        operator.nodes.append(node)
        operator.output.name = node.name
        self._readers[operator.output] = self._node_readers[node.name]
        self.tensors[node.name] = operator.output

    def share_range(self, operator: Operator) -> None:
        """Gives all inputs of `operator` the range of its output, as the converter does for one common scale.

        Raises:
            ValueError: if an input has a scale of its own, or is read by another operator, too.
        """
        for tensor in operator.inputs:
            while True:
                writer = self._writers.get(tensor)
                if writer is None or isinstance(writer.int8_scale, tuple) or self._readers[tensor] != 1:
                    raise ValueError(
                        f"{tensor.name} cannot share the scale of {operator.output.name}: it has a scale of its own, "
                        "or another operator reads it"
                    )
                self.shared_ranges[tensor] = operator.output
                if writer.int8_scale != "input":
                    break
                tensor = writer.inputs[0]

    def range_of(self, tensor: Tensor) -> str:
        """The name of the tensor whose range applies to `tensor`."""
        while tensor in self.shared_ranges:
            tensor = self.shared_ranges[tensor]
        return tensor.name

    def constant(self, *values: int) -> Tensor:
        """A constant vector of int32, shared by all operators that use it."""
        if values not in self._constants:
            name = "constant_" + "_".join(map(str, values))
            self._constants[values] = Tensor(name, (len(values),), "int32", np.array(values, np.int32))
        return self._constants[values]

"""Files whose repeated parts are written once: read and computed with as before, to the bit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from nas_edge.export.verify import KERNELS, open_interpreter, run_tflite
from nas_edge.networks.flatbuffer import compacted
from nas_edge.networks.tflite_model import tflite_model
from tests.support.exported import Exported
from tests.support.requirements import board_python

# What a runtime makes of two files, by kernels that the file's argument names; runs in any Python with one.
_OUTPUTS_ARE_EQUAL = """
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter, OpResolverType

def outputs(path, resolver):
    interpreter = Interpreter(path, experimental_op_resolver_type=resolver, num_threads=1)
    interpreter.allocate_tensors()
    source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.set_tensor(source["index"], np.random.RandomState(0).normal(size=source["shape"]).astype(np.float32))
    interpreter.invoke()
    return interpreter.get_tensor(result["index"]).tobytes()

for resolver in (OpResolverType.AUTO, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES):
    assert outputs(sys.argv[1], resolver) == outputs(sys.argv[2], resolver)
"""


def _zero_point_vectors(file: bytes) -> tuple[int, int]:
    """How many tensors have zero points, and how many lists of them there are in the file."""
    subgraph = schema.Model.GetRootAs(file, 0).Subgraphs(0)
    found = [subgraph.Tensors(i).Quantization() for i in range(subgraph.TensorsLength())]
    places = [
        one._tab.Vector(one._tab.Offset(10)) for one in found if one is not None and one.ZeroPointLength()
    ]  # field 3 of the table
    return len(places), len(set(places))


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_compacted_file_computes_the_same_to_the_bit(exported: Exported, kernels: str) -> None:
    small = compacted(exported.mixed)  # as the converter wrote it
    assert len(small) < len(exported.mixed)
    expected = run_tflite(exported.mixed, exported.images, kernels=kernels)
    assert len(np.unique(expected)) > 10
    np.testing.assert_array_equal(run_tflite(small, exported.images, kernels=kernels), expected)


def test_a_compacted_file_says_the_same_of_every_tensor(exported: Exported) -> None:
    def told(file: bytes) -> list[object]:
        return [
            (one["name"], one["shape"].tolist(), one["dtype"], *(np.asarray(v).tolist() for v in quantized.values()))
            for one in open_interpreter(file, 1).get_tensor_details()
            if (quantized := one["quantization_parameters"])
        ]

    assert told(compacted(exported.mixed)) == told(exported.mixed)


@pytest.mark.parametrize("source", ["converted", "written"])
def test_equal_zero_points_are_in_the_file_once(exported: Exported, source: str) -> None:
    file = exported.int8 if source == "converted" else tflite_model(exported.spec, "int8")
    tensors, lists = _zero_point_vectors(file)
    _, unshared = _zero_point_vectors(exported.mixed)
    assert lists < tensors / 2 < unshared
    assert compacted(file) == file


def test_weights_stay_aligned(exported: Exported) -> None:
    model = schema.Model.GetRootAs(compacted(exported.mixed), 0)
    vectors = []
    for i in range(model.BuffersLength()):
        buffer = model.Buffers(i)
        if buffer.DataLength():
            vectors.append(buffer._tab.Vector(buffer._tab.Offset(4)))
    assert vectors
    assert all(place % 16 == 0 for place in vectors)


@pytest.mark.parametrize("length", [0, 40, 3000])
def test_a_damaged_file_is_a_value_error(exported: Exported, length: int) -> None:
    with pytest.raises(ValueError, match="damaged"):
        compacted(exported.mixed[:length])


@pytest.mark.needs("board_python")
def test_an_older_runtime_computes_the_same_too(exported: Exported, tmp_path: Path) -> None:
    files = {"before.tflite": exported.mixed, "after.tflite": compacted(exported.mixed)}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    subprocess.run(
        [board_python(), "-c", _OUTPUTS_ARE_EQUAL, *files], check=True, cwd=tmp_path, capture_output=True, timeout=120
    )

"""The gate: whether a TFLite file can run on a kind of hardware as a whole, operator by operator."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nas_edge.errors import ExportError
from nas_edge.hardware.profile import Hardware, Rule
from nas_edge.networks.precisions import PRECISIONS, Precision
from nas_edge.networks.tflite_model import FileTensor, OperatorInfo, operators


def listed(precisions: Collection[Precision]) -> str:
    """Names in the order of the table, for example `int8, float32`."""
    return ", ".join(name for name in PRECISIONS if name in precisions)


_FLOAT_DTYPES = frozenset({"FLOAT32", "FLOAT16", "BFLOAT16", "FLOAT64"})
_NAMED = 3


@dataclass(frozen=True)
class OperatorProblem:
    """Something about an operator of a file.

    Attributes:
        layer: the tensor it writes, which has its layer's name.
        operator: its name in TFLite's schema.
        why: what it is.
    """

    layer: str
    operator: str
    why: str

    def __str__(self) -> str:
        return f"{self.layer}: {self.operator}: {self.why}"


@dataclass(frozen=True)
class HardwareCheck:
    """What came of checking a file.

    Attributes:
        hardware: name of the profile.
        operators: how many the file has.
        problems: why it cannot run there as a whole; none where it can.
        advice: what runs, but is better left out.
        note: what the hardware's own tools say of it, see `Hardware.finish`; "" without any.
    """

    hardware: str
    operators: int
    problems: tuple[OperatorProblem, ...] = ()
    advice: tuple[OperatorProblem, ...] = ()
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the file can run there as a whole, as far as its profile tells."""
        return not self.problems

    def __str__(self) -> str:
        count = f"{self.operators} operator{'s' if self.operators != 1 else ''}"
        if self.problems:
            outside = (
                f"{len(self.problems)} of {count} {'is' if len(self.problems) == 1 else 'are'} outside its profile"
            )
            return f"not for {self.hardware}: {outside}: {_some(self.problems)}"
        note = f"; {self.note}" if self.note else ""
        slow = f"; slow there: {_some(self.advice)}" if self.advice else ""
        return f"checked for {self.hardware}: {count}, all within its profile{slow}{note}"

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> HardwareCheck:
        """Reads `to_json`; it may come from anywhere.

        Raises:
            ValueError, LookupError, TypeError, AttributeError: when it is something else.
        """
        problems, advice = (
            tuple(OperatorProblem(str(p["layer"]), str(p["operator"]), str(p["why"])) for p in record[name])
            for name in ("problems", "advice")
        )
        return cls(str(record["hardware"]), int(record["operators"]), problems, advice, str(record.get("note", "")))


def _some(problems: Sequence[OperatorProblem]) -> str:
    shown = "; ".join(map(str, problems[:_NAMED]))
    return f"{shown}; ..." if len(problems) > _NAMED else shown


def check_file(model: bytes, hardware: Hardware, precision: Precision = "int8") -> HardwareCheck:
    """Checks every operator of a file against a profile.

    Args:
        model: a TFLite file.
        hardware: where it is to run.
        precision: what the file claims to be, see `PRECISIONS`; in `int8` no operator may be a float one.

    Raises:
        ExportError: when the file is damaged.
    """
    try:
        found = operators(model)
    except ValueError as e:
        raise ExportError(str(e)) from e
    if precision not in hardware.precisions:
        whole = OperatorProblem("the file", precision, f"only {listed(hardware.precisions)} files run there")
        return HardwareCheck(hardware.name, len(found), (whole,))
    problems, advice = [], []
    for operator in found:
        name = operator.outputs[0].name if operator.outputs else "(no output)"
        why = next(_problems(operator, hardware, precision), "")
        if why:
            problems.append(OperatorProblem(name, operator.name, why))
        advice += [OperatorProblem(name, operator.name, said) for said in _broken(hardware.slow, operator)]
    return HardwareCheck(hardware.name, len(found), tuple(problems), tuple(advice))


def require_hardware(model: bytes, hardware: Hardware, precision: Precision = "int8") -> HardwareCheck:
    """As `check_file`, for a file that has to run there.

    Raises:
        ExportError: when it cannot, naming layers.
    """
    check = check_file(model, hardware, precision)
    if not check.passed:
        raise ExportError(
            str(check), fix=f"`nas-edge spaces check SPACE --hardware {hardware.name}` says which choices fit"
        )
    return check


def _problems(operator: OperatorInfo, hardware: Hardware, precision: Precision) -> Iterator[str]:
    """What is wrong with an operator, the most telling first."""
    tensors, types = (*operator.inputs, *operator.outputs), PRECISIONS[precision]
    cast = operator.name in types.casts
    if cast and all(tensor.values is not None for tensor in operator.inputs):
        return  # how weights are stored: they are cast when the file is loaded
    floats = sorted({tensor.dtype for tensor in tensors} & _FLOAT_DTYPES)
    if types.calibrated and floats and not cast:
        yield f"a float operator ({', '.join(floats).lower()}) in an {precision} file"
    if operator.name in types.without:
        yield f"it has no {types.activations} kernel"
    for tensor in tensors:
        if tensor.dynamic:
            yield f"{tensor.name} {list(tensor.shape)} has a dimension of any size; fix the shape, batch included"
        if len(tensor.shape) > hardware.max_rank:
            yield f"{tensor.name} {list(tensor.shape)} has more than {hardware.max_rank} dimensions"
    if mask := _mask(operator):
        yield f"multiplies by the mask {mask}, a constant of ones and zeros: take its channels out of the network"
    support = hardware.operators.get(operator.name)
    if support is None:
        yield "the operator is not supported"
        return
    if operator.version > support.max_version:
        yield f"version {operator.version} is not supported, {support.max_version} is the latest that is"
    if types.calibrated:
        allowed = hardware.int8_dtypes if types.activations == "int8" else types.operator_dtypes
        others = sorted({tensor.dtype for tensor in tensors} - allowed - _FLOAT_DTYPES)
        if others:
            yield f"its type {', '.join(others).lower()} is not supported"
    yield from _broken((*support.rules, *hardware.rules), operator)


def _broken(rules: Sequence[Rule], operator: OperatorInfo) -> Iterator[str]:
    for rule in rules:
        try:
            why = rule(operator)
        except (LookupError, ValueError):  # operands are missing, or have other shapes than the operator takes
            why = "its operands are not those of such an operator"
        if why:
            yield why


def _mask(operator: OperatorInfo) -> str:
    """The name of the mask that an operator multiplies by; "" if there is none."""
    if operator.name != "MUL":
        return ""
    return next((tensor.name for tensor in operator.inputs if _is_mask(tensor)), "")


def _is_mask(tensor: FileTensor) -> bool:
    if tensor.values is None:
        return False
    zero = tensor.values == (tensor.zero_point or 0)
    return bool(zero.any() and len({*tensor.values[~zero].tolist()}) <= 1)

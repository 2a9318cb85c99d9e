"""An Edge TPU that a worker uses: what the worker says of it, in words and as a device.

What is known to work together, and what crashes: google-coral/edgetpu#812, libedgetpu#53, LiteRT#3611.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from device_agents.api import DeviceInfo, Measurement, Verdict
from device_agents.errors import BenchFailedError, DeviceUnavailableError, ProtocolError
from device_agents.probe_models import PROBE_MODELS, compute_model
from device_agents.worker.edgetpu import CUSTOM_OPERATOR, LIBRARY_VARIABLE
from device_agents.worker.frames import Frame
from device_agents.worker_agent import Accelerator
from device_agents.worker_link import WorkerDiedError, WorkerLink, WorkerTimeoutError

DEVICE = re.compile(r"|(usb|pci)?(:\d{1,3})?")
_TRY_TIMEOUT_S = 60.0
_USB3_MBPS = 5000
_GET_LIBRARY = "https://github.com/feranick/libedgetpu/releases"
KNOWN_PAIRS = (
    "ai-edge-litert 2.2.0 with libedgetpu 16.0TF2.19.1-1, or tflite-runtime 2.17.1 with 16.0TF2.17.1-1 "
    f"({_GET_LIBRARY})"
)
UDEV_RULE = (
    'SUBSYSTEM=="usb",ATTRS{idVendor}=="1a6e",GROUP="plugdev",MODE="0664" and the same with idVendor 18d1, in '
    "/etc/udev/rules.d/99-edgetpu.rules"
)


@dataclass(frozen=True)
class PluggedIn:
    """An Edge TPU that the system sees.

    Attributes:
        kind: "usb" or "pci".
        speed_mbps: Of its USB port; 0 where that is not known.
        may_open: Whether the worker's user may open it.
    """

    kind: str
    speed_mbps: int
    may_open: bool


@dataclass(frozen=True)
class EdgeTpuFacts:
    """What a worker says of its Edge TPU.

    Attributes:
        library: Name or path of libedgetpu.
        version: What it calls itself, or "".
        devices: What is plugged in.
        max_clock: Whether the library is the one for the maximum clock.
        failure: Which error came of using it, as its class and text; empty if it works.
    """

    library: str
    version: str
    devices: tuple[PluggedIn, ...]
    max_clock: bool
    failure: tuple[str, str] | tuple[()]

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> EdgeTpuFacts:
        """Reads a worker's answer, trusting nothing.

        Raises:
            ProtocolError: If it is something else.
        """
        try:
            failure = facts["failure"]
            return cls(
                library=_text(facts["library"]),
                version=_text(facts["version"]),
                devices=tuple(
                    PluggedIn(_text(one["kind"]), int(one["speed_mbps"]), bool(one["may_open"]))
                    for one in facts["devices"][:100]
                ),
                max_clock=bool(facts["max_clock"]),
                failure=() if failure is None else (_text(failure["kind"]), _text(failure["message"])),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProtocolError(
                "The worker says of its Edge TPU what makes no sense", received=f"{error!r:.80}"
            ) from None

    def chosen(self, device: str) -> PluggedIn | None:
        """The one that an address names; None if it is not seen."""
        kind, _, number = device.partition(":")
        fitting = [one for one in self.devices if kind in ("", one.kind)]
        position = int(number or 0)
        return fitting[position] if position < len(fitting) else None


class EdgeTpuAccelerator(Accelerator):
    """An Edge TPU that a worker uses for the models that are compiled for it.

    Args:
        device: As in `worker.edgetpu.EdgeTpu`.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self.facts: EdgeTpuFacts | None = None
        self.arguments = ("edgetpu", device)

    def attach(self, worker: WorkerLink) -> None:
        """See `Accelerator`."""
        runtime = f"{worker.hello.get('runtime')} {worker.hello.get('runtime_version')}"
        try:
            answer = worker.request(Frame({"do": "accelerator"}, (compute_model(),)), _TRY_TIMEOUT_S)
        except WorkerDiedError as error:
            raise mismatch(runtime, error.signal_name or "an error") from error
        except WorkerTimeoutError as error:
            raise DeviceUnavailableError(
                f"The Edge TPU does not answer: {error}", fix="unplug it, plug it in again, and try again"
            ) from error
        self.facts = EdgeTpuFacts.read(answer.header)
        problem = explain(self.facts, self._device)
        if problem is not None:
            raise problem

    def describe(self, info: DeviceInfo) -> DeviceInfo:
        """See `Accelerator`: Edge TPUs at other ports and clocks, and other libraries, give other latencies."""
        facts = self.facts
        assert facts is not None
        version = f" with {facts.library.rpartition('/')[2]} {facts.version}".rstrip()
        return replace(
            info,
            model=f"{describe_device(facts, self._device)} on {info.model}",
            runtime_version=info.runtime_version + version,
        )

    def refuse(self, model: bytes) -> Measurement | None:
        """See `Accelerator`: what is not compiled for it would run on the CPU; only the session's probes may."""
        if CUSTOM_OPERATOR in model or is_probe(model):
            return None
        said = f"the model is not compiled for the Edge TPU (no {CUSTOM_OPERATOR.decode()} in it): the CPU would run it"
        return Measurement(Verdict.FALLBACK, said)


def is_probe(model: bytes) -> bool:
    """Whether a model is one of the session's probes, which tell how quiet the CPU is and so run there."""
    return model in _probes()


@functools.cache
def _probes() -> frozenset[bytes]:
    return frozenset(make() for make in PROBE_MODELS.values())


def describe_device(facts: EdgeTpuFacts, device: str) -> str:
    """What an Edge TPU is, as part of a device's model: the port and the clock decide about its speed."""
    chosen = facts.chosen(device)
    port = ""
    if chosen is not None and chosen.kind == "pci":
        port = ", PCIe"
    elif chosen is not None:
        port = ", USB 2" if is_usb2(chosen) else ", USB 3" if chosen.speed_mbps else ", USB"
    return f"Coral Edge TPU{port}{', maximum clock' if facts.max_clock else ''}"


def is_usb2(device: PluggedIn) -> bool:
    """Whether parameters and images travel at USB 2's speed."""
    return device.kind == "usb" and 0 < device.speed_mbps < _USB3_MBPS


def explain(facts: EdgeTpuFacts, device: str) -> DeviceUnavailableError | None:
    """What is wrong, with what to do about it; None where the Edge TPU works.

    Args:
        facts: What a worker says.
        device: Which one was asked for.
    """
    if not facts.failure:
        return None
    kind, message = facts.failure
    library = facts.library
    if kind == "OSError":
        return DeviceUnavailableError(
            f"{library} cannot be loaded: {message}",
            fix=f"install the one that fits your TFLite: {KNOWN_PAIRS}; {LIBRARY_VARIABLE}=FILE names another file",
        )
    if kind == "AttributeError":
        return DeviceUnavailableError(
            f"{library} is no Edge TPU runtime: {message}",
            fix=f"unset {LIBRARY_VARIABLE}, or let it name libedgetpu.so.1; it comes from {_GET_LIBRARY}",
        )
    if kind == "RuntimeError":
        return BenchFailedError(
            f"The Edge TPU's delegate does not work: {message}", fix=f"a pair known to work: {KNOWN_PAIRS}"
        )
    if not facts.devices:
        return DeviceUnavailableError(
            "No Edge TPU is plugged in: the system lists no USB device 1a6e:089a or 18d1:9302, and no /dev/apex_*",
            fix="plug it in; for PCIe, install the driver (gasket-dkms) and restart",
        )
    chosen = facts.chosen(device)
    if chosen is None:
        kinds = ", ".join(one.kind for one in facts.devices)
        return DeviceUnavailableError(
            f"There is no Edge TPU {device!r}", received=f"{len(facts.devices)} plugged in: {kinds}", fix="count from 0"
        )
    if not chosen.may_open:
        rule = (
            UDEV_RULE
            if chosen.kind == "usb"
            else 'SUBSYSTEM=="apex",MODE="0660",GROUP="apex", in a file of /etc/udev/rules.d'
        )
        group = "plugdev" if chosen.kind == "usb" else "apex"
        return DeviceUnavailableError(
            f"The Edge TPU ({chosen.kind}) may not be opened by this user",
            fix=f"add the udev rule {rule}; then `sudo usermod -aG {group} $USER`, log in anew, and plug it in again",
        )
    said = f": {message}" if message and "Failed to load delegate" not in message else ""
    return DeviceUnavailableError(
        f"The Edge TPU ({chosen.kind}) is busy{said}",
        fix="end the other program that uses it; if there is none, unplug it and plug it in again",
    )


def mismatch(runtime: str, signal: str) -> BenchFailedError:
    """The error of a library and a runtime that do not fit, which ends the process that loads both."""
    return BenchFailedError(
        f"libedgetpu and the TFLite runtime do not fit: using them together ended the process ({signal})",
        received=runtime,
        fix=f"install a pair known to work: {KNOWN_PAIRS}; Google's own libedgetpu 16.0 needs TFLite 2.11 or older",
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, received {value!r:.80}")
    return "".join(c if c.isprintable() else " " for c in value[:500])

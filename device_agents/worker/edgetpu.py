"""Coral's Edge TPU: the delegate of libedgetpu, through the runtime's own `load_delegate`.

It runs in this process, which a pair of libedgetpu and TFLite that do not fit crashes; whoever started the process sees
by which signal. Facts are collected here; what they mean is said on the host, see `device_agents.edgetpu`.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

# Names another library file than the system's.
LIBRARY_VARIABLE = "NAS_EDGE_LIBEDGETPU"
_LIBRARIES = {"darwin": "libedgetpu.1.dylib", "win32": "edgetpu.dll"}
_DEFAULT_LIBRARY = "libedgetpu.so.1"
# The operator into which the compiler packs what runs on the Edge TPU.
CUSTOM_OPERATOR = b"edgetpu-custom-op"
# Vendor and product of the USB accelerator before and after it has its firmware.
_USB_IDS = ("1a6e:089a", "18d1:9302")


class EdgeTpu:
    """Makes interpreters use an Edge TPU for models that are compiled for it.

    Args:
        device: As libedgetpu names it: "" for any, "usb", "usb:0", "pci", "pci:0", ":0".
    """

    def __init__(self, device: str) -> None:
        self.device = device

    def takes(self, model: bytes) -> bool:
        """Whether a model is compiled for it; all others run on the CPU."""
        return CUSTOM_OPERATOR in model

    def delegate(self, module: Any) -> Any:
        """Returns a delegate of the runtime whose `interpreter` module is given; an interpreter has one of its own.

        Raises:
            OSError: If the library is not there.
            AttributeError: If it is another library.
            ValueError: If it finds no device, or may not open it.
        """
        return module.load_delegate(library(), {"device": self.device} if self.device else {})

    def examine(self, module: Any, model: bytes) -> dict[str, Any]:
        """Returns what there is, and what comes of using it on a model that is not compiled for it.

        Args:
            module: The runtime's `interpreter` module.
            model: A model for the CPU. That the delegate looks at its graph is what crashes where versions do not fit.
        """
        facts = {
            "library": library(),
            "version": _version(),
            "devices": usb_devices() + pci_devices(),
            "max_clock": _is_max_clock(),
            "failure": None,
        }  # type: dict[str, Any]
        try:
            delegate = self.delegate(module)
            resolver = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            module.Interpreter(
                model_content=model, experimental_delegates=[delegate], experimental_op_resolver_type=resolver
            ).allocate_tensors()
        except (OSError, AttributeError, ValueError, RuntimeError) as error:
            facts["failure"] = {"kind": type(error).__name__, "message": " ".join(str(error).split())[:300]}
        return facts


def library() -> str:
    """Returns the name or path of libedgetpu."""
    return os.environ.get(LIBRARY_VARIABLE) or _LIBRARIES.get(sys.platform, _DEFAULT_LIBRARY)


def _version() -> str:
    """What the library calls itself, "" if it does not."""
    try:
        tell = ctypes.CDLL(library()).edgetpu_version
    except (OSError, AttributeError):
        return ""
    tell.restype = ctypes.c_char_p
    return (tell() or b"").decode("utf-8", "replace")[:200]


def usb_devices(root: Path = Path("/")) -> list[dict[str, Any]]:
    """Returns the USB accelerators that are plugged in: kind, speed in Mbit/s, and whether this user may open them.

    Args:
        root: Where /sys and /dev are.
    """
    found = []
    for folder in sorted((root / "sys/bus/usb/devices").glob("*")):
        if f"{_read(folder / 'idVendor')}:{_read(folder / 'idProduct')}" in _USB_IDS:
            bus, number = _whole(_read(folder / "busnum")), _whole(_read(folder / "devnum"))
            node = root / "dev/bus/usb" / f"{bus:03d}" / f"{number:03d}"
            found.append({"kind": "usb", "speed_mbps": _whole(_read(folder / "speed")), "may_open": _may_open(node)})
    return found


def pci_devices(root: Path = Path("/")) -> list[dict[str, Any]]:
    """Returns the PCIe accelerators that the driver offers, likewise."""
    nodes = sorted((root / "dev").glob("apex_*"))
    return [{"kind": "pci", "speed_mbps": 0, "may_open": _may_open(node)} for node in nodes]


def _may_open(node: Path) -> bool:
    return os.access(str(node), os.R_OK | os.W_OK)


def _is_max_clock(root: Path = Path("/")) -> bool:
    """Whether Debian's package of the library for the maximum clock is installed, which makes the device hot."""
    return any((root / "var/lib/dpkg/info").glob("libedgetpu1-max*.list"))


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except (OSError, ValueError):
        return ""


def _whole(text: str) -> int:
    return int(text) if text.isdigit() else 0

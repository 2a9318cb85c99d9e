"""Energy of the CPU, from the counters of Linux's powercap (RAPL; Intel, and AMD since Linux 5.8).

    /sys/class/powercap/intel-rapl:0/{name, energy_uj, max_energy_range_uj}    a package; intel-rapl:0:1 is part of it

`energy_uj` counts microjoules of the whole package, whichever program uses them, and wraps around to 0 after
`max_energy_range_uj`. Since Linux 5.10 only root may read it, because it leaks secrets (CVE-2020-8694).

Source: Linux, Documentation/power/powercap/powercap.rst.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from .system import ROOT

_FOLDER = "sys/class/powercap"
SOURCE = "of all CPU packages, from RAPL"


class EnergyMeter:
    """Reads the counters of all packages.

    Args:
        root: Where /sys is.
        accelerator: Whether models run on something that the CPU's counters do not cover.

    Attributes:
        note: What is counted; or why it cannot be.
    """

    def __init__(self, root: Path = ROOT, accelerator: bool = False) -> None:
        self._counters: list[tuple[Path, int]] = []
        self.note = SOURCE
        if accelerator:
            self.note = "the CPU's energy counters do not cover the accelerator"
            return
        # Other zones at this level would count the same again: psys the whole board, intel-rapl-mmio the package.
        zones = [zone for zone in sorted((root / _FOLDER).glob("intel-rapl:*")) if re.fullmatch(r".*:\d+", zone.name)]
        packages = [zone for zone in zones if zone.name.count(":") == 1 and _text(zone / "name").startswith("package")]
        if not packages:
            self.note = f"this machine has no energy counters (/{_FOLDER}/intel-rapl:*)"
        for zone in packages:
            file = zone / "energy_uj"
            problem = _problem(file)
            largest = _text(zone / "max_energy_range_uj")
            if problem or not largest.isdigit():
                shown = "/" + file.relative_to(root).as_posix()
                why = problem or "its max_energy_range_uj cannot be read"
                self.note = f"{shown}: {why}; to let all users read it until the next reboot: sudo chmod a+r {shown}"
                self._counters = []
                return
            self._counters.append((file, int(largest)))

    def read(self) -> list[int] | None:
        """Returns the current counts in microjoules, None if there are none."""
        texts = [_text(file) for file, _ in self._counters]
        return [int(text) for text in texts] if texts and all(text.isdigit() for text in texts) else None

    def since(self, before: list[int] | None) -> float | None:
        """Returns the millijoules used since an earlier reading, None if that is not known."""
        now = self.read()
        if before is None or now is None:
            return None
        spent_uj = 0
        for (_, largest), was, is_ in zip(self._counters, before, now):
            spent_uj += is_ - was if is_ >= was else is_ - was + largest
        # The counters of a virtual machine may stand still.
        return spent_uj / 1e3 if spent_uj > 0 else None


def _problem(file: Path) -> str:
    try:
        file.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        return os.strerror(error.errno) if error.errno else "it cannot be read"
    return ""


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""

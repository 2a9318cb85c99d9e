"""An errand: one command on a phone that does several things, so that they cost few round trips.

    bring models -> verify all of them -> look at the phone -> run the tool, process by process -> look again

Models that are not there yet come on the command's standard input, one after another in one bundle. Nothing but the
tool runs between the two looks, and what is printed goes in one piece at the end: the phone waits for an answer to
every packet, between two processes as well. The first process that fails ends the errand.
"""

from __future__ import annotations

import base64
import binascii
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from device_agents.android.benchmark_model import Invocation, ToolReport, read_report
from device_agents.android.energy import SAMPLE
from device_agents.android.result_file import read_result_file
from device_agents.android.state import STATE_FUNCTIONS, PhoneState, core_mask, split_sections, state_of
from device_agents.android.transport import printable
from device_agents.device_lock import RENEW
from device_agents.errors import DeviceUnavailableError, ProtocolError

NOT_CLEARED = "let nobody clear /data/local/tmp meanwhile; the next attempt puts there again what is missing"
NOT_ARRIVED, NOT_PINNED, CHANGED = 91, 92, 94
"""Exit statuses: a model cannot be put in place, the cores cannot be used, a model is not what it should be."""


class Look(Enum):
    """What is read of the phone's state before the tool runs."""

    NONE = 0
    QUICK = 1
    WHOLE = 2


@dataclass(frozen=True)
class Process:
    """One process of the tool.

    Attributes:
        position: Of the model it runs, among those that are measured.
        graph: The model's file on the phone.
        invocation: What the tool is asked to do.
    """

    position: int
    graph: str
    invocation: Invocation


@dataclass(frozen=True)
class Parcel:
    """Models that are sent.

    Attributes:
        file: Where their bytes, one model after another, arrive on the phone.
        packed: Whether they are packed.
        sizes: Size in bytes of each, by the file it becomes.
    """

    file: str
    packed: bool
    sizes: Mapping[str, int]


@dataclass(frozen=True)
class Errand:
    """What is done.

    Attributes:
        folder: The run's folder on the phone.
        marker: What no tool prints.
        lock: The file of the lock that is renewed.
        tool: The tool there.
        models: SHA-256 of each model that is run, by its file.
        processes: What is run.
        parcel: Models that come along, if any.
        gone: Files that are removed first.
        cores: Where the tool runs; None for anywhere.
        result: The file the tool writes its numbers to, "" if it cannot.
        look: What is read of the phone's state first.
        begin_within_s: No process but the first begins later than so many seconds; 0 for no limit.
        power: The file to which samples of the battery are written while the tool runs; "" if not requested.
    """

    folder: str
    marker: str
    lock: str
    tool: str
    models: Mapping[str, str]
    processes: Sequence[Process]
    parcel: Parcel | None
    gone: Sequence[str]
    cores: tuple[int, ...] | None
    result: str
    look: Look
    begin_within_s: int
    power: str = ""

    def script(self) -> tuple[str, ...]:
        """Returns a shell script and its arguments."""
        flags = list(dict.fromkeys(process.invocation.flags[1:] for process in self.processes))
        more = (f"--result_file_path={self.result}",) if self.result else ()
        uses = [f'use{number}() {{ "$tool" "$1" {shlex.join((*each, *more))}; }}' for number, each in enumerate(flags)]
        steps = [
            f"process use{flags.index(process.invocation.flags[1:])} {shlex.quote(process.invocation.flags[0])}"
            for process in self.processes
        ]
        sums = "\n".join(f"{sha256}  {graph}" for graph, sha256 in self.models.items())
        parcel, mask = self.parcel, core_mask(self.cores) if self.cores else ""
        return (
            "\n".join((_BEGIN, STATE_FUNCTIONS, *uses, "processes() {", *steps, "}", self._metering(), _END)),
            *(self.folder, self.marker, self.lock, self.tool, " ".join(self.models), sums, " ".join(self.gone)),
            *(mask, self.result, str(self.look.value), str(self.begin_within_s or "")),
            *(() if parcel is None else (parcel.file, "packed" if parcel.packed else "", *_places(parcel.sizes))),
        )

    def _metering(self) -> str:
        if not self.power:
            return "power="
        return f"power={shlex.quote(self.power)}\n{SAMPLE}"


def _places(sizes: Mapping[str, int]) -> list[str]:
    """Where each model begins in the bundle, from 1 on, its size, and its file."""
    words, begins = [], 1
    for file, size_bytes in sizes.items():
        words += [str(begins), str(size_bytes), file]
        begins += size_bytes
    return words


# $1 folder, $2 marker, $3 lock, $4 tool, $5 models, $6 what sha256sum has to print for them, $7 files to remove first,
# $8 mask, $9 result file if there is one; then a `Look`, the seconds in which a process may begin, and where there is a
# parcel its file, "packed" or "", and for each model its place, its size and its file.
_BEGIN = f"""
cd "$1" || exit 125
marker=$2 lock=$3 tool=$4 models=$5 sums=$6 gone=$7 mask=$8 result=$9
shift 9
look=$1 within=$2 sent=$3 packed=$4
shift 2
trap 'rm -f $sent $sent.whole $result' EXIT
{{ : > at; }} 2>/dev/null
{RENEW}
[ -z "$gone" ] || rm -rf $gone
if [ -n "$sent" ]; then
  shift 2
  whole=$sent
  [ -z "$packed" ] || {{ whole=$sent.whole; zcat "$sent" > "$whole" && rm -f "$sent" || exit {NOT_ARRIVED}; }}
  [ -d "${{3%/*}}" ] || mkdir -p "${{3%/*}}"
  if [ "$#" = 3 ]; then
    mv "$whole" "$3" || exit {NOT_ARRIVED}
  else
    while [ "$#" -gt 0 ]; do
      [ -d "${{3%/*}}" ] || mkdir -p "${{3%/*}}"
      tail -c "+$1" "$whole" | head -c "$2" > "$3" || exit {NOT_ARRIVED}
      shift 3
    done
    rm -f "$whole"
  fi
fi
found=$(sha256sum $models 2>&1)
[ "$found" = "$sums" ] || {{ echo "$found"; exit {CHANGED}; }}
[ -z "$mask" ] || taskset -p "$mask" $$ >/dev/null || exit {NOT_PINNED}
"""
_END = f"""
status=0 number=0
process() {{
  [ "$status" = 0 ] || return
  [ -z "$within" ] || [ "$number" = 0 ] || [ "$SECONDS" -lt "$within" ] || return
  {{ echo "$number" > at; }} 2>/dev/null
  number=$((number + 1))
  echo "$marker process"
  [ -z "$power" ] || {{ sample_power > "$power" 2>/dev/null < /dev/null & sampler=$!; }}
  began=$EPOCHREALTIME
  "$@" 2>&1
  status=$?
  ended=$EPOCHREALTIME
  [ -z "$power" ] || {{ kill "$sampler"; wait "$sampler"; }} 2>/dev/null
  echo
  [ -z "$result" ] || {{ echo "$marker result"; base64 < "$result"; rm -f "$result"; }} 2>/dev/null
  [ -z "$power" ] || {{ echo "$marker power"; cat "$power"; rm -f "$power"; }} 2>/dev/null
  echo "$marker ended $status $began $ended"
}}
errand() {{
  echo "$marker before"
  [ "$look" = {Look.NONE.value} ] || quick_state 2>/dev/null
  [ "$look" != {Look.WHOLE.value} ] || power_state 2>/dev/null
  processes
  echo "$marker after"
  quick_state 2>/dev/null
}}
printed=$(errand)
print -r -- "$printed"
"""
AT = 'cat "$1/at"'
"""A script that prints, given the run's folder, the number of the process that began last."""


@dataclass(frozen=True)
class ProcessReport:
    """What one process of the tool brought.

    Attributes:
        report: What it printed.
        exit_code: How it ended.
        took_s: How long it ran in all, in seconds; None if not known.
        power: Samples of the battery during the run, see `energy.read_power`; None if not requested.
    """

    report: ToolReport
    exit_code: int
    took_s: float | None
    power: str | None = None


@dataclass(frozen=True)
class Done:
    """What an errand brought: a report of each process that ran, and the states before (if asked for) and after."""

    processes: tuple[ProcessReport, ...]
    before: PhoneState
    after: PhoneState


def read_errand(text: str, marker: str, address: str) -> Done:
    """Reads what an errand printed.

    Raises:
        ProtocolError: If it makes no sense.
        DeviceUnavailableError: If no process was run.
    """
    reports: list[ProcessReport] = []
    ran, _, after = text.partition(f"{marker} after\n")
    before = ran.partition(f"{marker} process\n")[0].partition(f"{marker} before\n")[2]
    for process in ran.split(f"{marker} process\n")[1:]:
        printed, _, ended = process.partition(f"{marker} ended ")
        match = re.match(r"(\d{1,3})(?: (\d{1,15}\.\d{1,9}) (\d{1,15}\.\d{1,9}))? *\n", ended)
        if match is None:
            raise ProtocolError(
                f"A process of the tool on {address} has no end", received=f"{printable(process, 80)!r}"
            )
        printed, asked, power = printed.partition(f"{marker} power\n")
        output, _, result = printed.partition(f"{marker} result\n")
        took_s = float(match[3]) - float(match[2]) if match[2] else None
        report = read_report(output).with_result(_read_result(result))
        took_s = None if took_s is None else max(0.0, took_s)
        reports.append(ProcessReport(report, int(match[1]), took_s, power if asked else None))
    if not reports:
        raise DeviceUnavailableError(f"The run's folder on {address} is gone", fix=NOT_CLEARED)
    return Done(tuple(reports), state_of(split_sections(before)), state_of(split_sections(after)))


def first_changed(output: str, models: Mapping[str, str]) -> str:
    """Returns which model is not what it should be, by what `sha256sum` printed; the first if that is not said."""
    found = {path: sha256 for sha256, _, path in (line.partition("  ") for line in output.splitlines())}
    return next((graph for graph, sha256 in models.items() if found.get(graph) != sha256), next(iter(models)))


def _read_result(text: str) -> dict[str, float]:
    """Reads a result file that was sent as base64."""
    try:
        return read_result_file(base64.b64decode(text, validate=False))
    except binascii.Error:
        return {}

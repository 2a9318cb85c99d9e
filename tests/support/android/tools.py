"""The tools that tests install on the stand-in for a phone."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from device_agents.probe_models import compute_model
from tests.support.android.phone import write_executable

NO_BUNDLE = "the real benchmark_model has not been built here: tools/build_benchmark_model.py"
_TRANSCRIPTS = Path(__file__).with_name("transcripts")
_STAND_IN = Path(__file__).with_name("stand_in_benchmark_model.py")


def real_bundle(cache: str) -> Path | None:
    """The real tool with the libraries it was linked to: bin/benchmark_model and lib/, if it has been built."""
    folder = Path(os.environ.get("NAS_EDGE_BENCHMARK_BUNDLE") or Path(cache) / "benchmark_model")
    return folder if (folder / "bin/benchmark_model").is_file() else None


def install_real_bundle(bundle: Path, overlay: Path) -> Path:
    """Lays the libraries into the phone's root, where the tool looks for them; returns the tool to be pushed."""
    shutil.copytree(bundle, overlay / "bench", dirs_exist_ok=True)
    return bundle / "bin/benchmark_model"


def stand_in_script() -> str:
    """Runs the stand-in with this Python, outside of the phone's root (see `prepare_adbd.py serve --host`)."""
    return f"""#!/system/bin/sh
exec chroot /host /usr/bin/env PHONE_ROOT="$(cat /host-root)" {sys.executable} {_STAND_IN} "$@"
"""


def canned_script(
    transcript: str, seconds: float = 0.0, exit_code: int = 0, flags: Sequence[str] = (), before: str = ""
) -> str:
    """Prints a transcript; for tests of what happens around the tool.

    Args:
        transcript: What it prints.
        seconds: How long it takes.
        exit_code: How it ends.
        flags: What else than --graph and --output_filepath it knows.
        before: Shell commands that it runs first; they see its arguments.
    """
    assert "'" not in transcript
    known = "; ".join(f'echo "\t--{flag}="' for flag in ("graph", "output_filepath", *flags))
    return f"""#!/system/bin/sh
case "$1" in --help) echo "Flags:"; {known}; exit 1;; esac
[ -s "${{1#--graph=}}" ] || {{ echo "ERROR: Could not open model" >&2; exit 1; }}
{before}
sleep {seconds}
echo '{transcript}'
exit {exit_code}
"""


def picky_script(transcript: str, good_transcript: str, seconds: float = 0.0, exit_code: int = 0) -> str:
    """Does what `canned_script` does for every model but the anchor, for which it prints a good transcript."""
    anchor = hashlib.sha256(compute_model()).hexdigest()[:16]
    good = f"case \"$1\" in *{anchor}*) echo '{good_transcript}'; exit 0;; esac"
    return canned_script(transcript, seconds, exit_code, before=good)


def sized_script() -> str:
    """Says that a run takes 0.1 us for each byte of the model: at once, and the same every time.

    For tests of whole searches, in which every network must have its own time and the real tool's runs would take
    minutes. It notes every block it has finished in /data/local/tmp/tool_log, hangs once where there is a file
    /data/local/tmp/hang, and leaves outputs and operator times to `stand_in_script`.
    """
    return f"""#!/system/bin/sh
case "$*" in
--help) echo "Flags:"; echo "\t--graph="; echo "\t--output_filepath="; exit 1;;
*--output_filepath=*|*--enable_op_profiling=true*) {stand_in_script().splitlines()[1]};;
esac
graph=${{1#--graph=}}
[ -s "$graph" ] || {{ echo "ERROR: Could not open model" >&2; exit 1; }}
rm /data/local/tmp/hang 2>/dev/null && sleep 600
us=$(($(wc -c < "$graph") / 10))
echo "INFO: Loaded model $graph"
echo "INFO: Initialized session in 1ms."
echo "INFO: count=1 curr=$us"
runs=50 least_us=0
for flag in "$@"; do
  case "$flag" in
    --num_runs=*) runs=${{flag#*=}};;
    --min_secs=0.*) digits=${{flag#*=0.}}000000; least_us=$((1${{digits:0:6}} - 1000000));;
  esac
done
[ "$((runs * us))" -ge "$least_us" ] || runs=$((least_us / us + 1))
echo "INFO: count=$runs curr=$us(all same)"
echo "INFO: Inference timings in us: Init: 1000, First inference: $us, Warmup (avg): $us, Inference (avg): $us"
echo "${{graph##*/}}" >> /data/local/tmp/tool_log
"""


def disturbed_script() -> str:
    """Says that a run takes 1 ms, at once and the same every time; but for models named in /data/local/tmp/slow more.

    Each line of that file is the beginning of a model's SHA-256 as it stands in its name on the phone, or `*` for every
    model, and what a run of it takes, in us.
    """
    return """#!/system/bin/sh
case "$1" in --help) echo "Flags:"; echo "\t--graph="; exit 1;; esac
[ -s "${1#--graph=}" ] || { echo "ERROR: Could not open model" >&2; exit 1; }
us=1000
while read -r model time; do
  case "$1" in *"$model"*) us=$time;; esac
  [ "$model" != "*" ] || us=$time
done 2>/dev/null < /data/local/tmp/slow
echo "INFO: Loaded model"
echo "INFO: Initialized session in 1ms."
echo "INFO: count=1 curr=3000"
echo "INFO: count=30 curr=$us(all same)"
echo "INFO: Inference timings in us: Init: 1000, First inference: 3000, Warmup (avg): 3000, Inference (avg): $us"
"""


def write_tool(folder: Path, script: str) -> Path:
    write_executable(folder / "tool", script)
    return folder / "tool"


def transcript(name: str) -> str:
    """What the tool printed, written after its real forms."""
    return (_TRANSCRIPTS / f"{name}.txt").read_text()

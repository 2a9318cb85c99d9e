"""`nas-edge devices setup`: gets `benchmark_model` onto a phone, sees it work there, and keeps it for later runs."""

from __future__ import annotations

import hashlib
import re
import secrets
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO

from device_agents.android.benchmark_model import read_report
from device_agents.android.claim import PhoneClaim
from device_agents.android.state import PhoneIdentity, read_identity
from device_agents.android.tool import (
    InstalledTool,
    another_build,
    elf_problem,
    find_tool,
    how_to_get,
    install_tool,
    is_on_phone,
    keep,
    kept_file,
    no_tool,
    run_folders,
)
from device_agents.android.transport import Transport
from device_agents.errors import DeviceUnavailableError, SpecError
from device_agents.probe_models import compute_model
from device_agents.wording import words_of

# The tool has some 10 MB; with every delegate linked in, tens.
MAX_TOOL_BYTES = 256 << 20
_DOWNLOAD_TIMEOUT_S = 30.0
_RUN_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class SetUp:
    """What was done.

    Attributes:
        identity: The phone.
        tool: The tool on it.
        source: Where it came from.
        latency_ms: Of the built-in anchor model, one run after one to warm up: a sign of life, no measurement.
        kept: The copy on this machine that later runs use; None if the tool was on the phone already.
    """

    identity: PhoneIdentity
    tool: InstalledTool
    source: str
    latency_ms: float
    kept: Path | None

    def facts(self) -> list[tuple[str, str]]:
        """Returns what was done, as pairs of a word and a fact."""
        android = f"Android {self.identity.android}" if self.identity.android else ""
        known = ", ".join(filter(None, (self.identity.soc, android, self.identity.abi)))
        facts = [
            ("phone", f"{self.identity.model or 'unknown'} ({known})"),
            ("tool", f"{self.source}, SHA-256 {self.tool.sha256}"),
            ("on the phone", self.tool.path),
            ("tried", f"runs the anchor model in {self.latency_ms:.3f} ms (one run, no measurement)"),
        ]
        if self.kept is not None:
            facts.append(("kept", f"{self.kept}, for every phone of ABI {self.identity.abi}"))
        return facts


def set_up(transport: Transport, source: str | None = None, sha256: str | None = None) -> SetUp:
    """Installs the tool on a phone and runs it once.

    Args:
        transport: The phone.
        source: File or https URL of the tool; None for one that this machine or the phone has already.
        sha256: What the tool's SHA-256 must be, in hexadecimal; None if that is not known.

    Raises:
        SpecError: If source or sha256 make no sense.
        DeviceUnavailableError: If there is no tool, it is not for this phone, it does not work there, or another
            process is measuring on the phone.
    """
    with PhoneClaim(transport):
        return _set_up(transport, source, sha256)


def _set_up(transport: Transport, source: str | None, sha256: str | None) -> SetUp:
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise SpecError(expected="--sha256 to be 64 hexadecimal digits", received=f"{sha256!r:.80}")
    identity = read_identity(transport)
    found = None if source else find_tool(identity.abi)
    if source is None and found is None:
        if not is_on_phone(transport):
            raise no_tool(identity.abi, transport.address)
        tool = install_tool(transport, identity.abi)
        _check_hash(tool.sha256, sha256, tool.path)
        return SetUp(identity, tool, "the phone itself", try_tool(transport, tool), None)
    source = source or str(found)
    data = _fetched(source) if "://" in source else _read(Path(source).expanduser())
    _check_hash(hashlib.sha256(data).hexdigest(), sha256, source)
    problem = elf_problem(data, identity.abi)
    if problem:
        raise DeviceUnavailableError(
            f"{source} is not a benchmark_model for this phone: {problem}",
            fix=how_to_get(identity.abi, transport.address),
        )
    # Installed from a copy of what was checked, and kept only once it has worked.
    with tempfile.TemporaryDirectory() as folder:
        checked = Path(folder) / "benchmark_model"
        checked.write_bytes(data)
        tool = install_tool(transport, identity.abi, checked)
    latency_ms = try_tool(transport, tool)
    if Path(source) == kept_file(identity.abi):
        return SetUp(identity, tool, source, latency_ms, Path(source))
    kept = keep(data, identity.abi, source, f"{identity.model}, Android {identity.android}")
    return SetUp(identity, tool, source, latency_ms, kept)


def try_tool(transport: Transport, tool: InstalledTool) -> float:
    """Runs the tool once and returns the latency it reports for the anchor model, in ms.

    Raises:
        DeviceUnavailableError: If it reports none.
    """
    folder = f"{run_folders()}{secrets.token_hex(4)}"
    model = f"{folder}/model.tflite"
    flags = [f"--graph={model}", "--num_runs=1", "--min_secs=0", "--warmup_runs=1", "--warmup_min_secs=0"]
    transport.push(compute_model(), model)
    try:
        done = transport.run([tool.path, *flags], timeout_s=_RUN_TIMEOUT_S)
    finally:
        transport.run(["rm", "-rf", folder])
    report = read_report(done.output + done.errors)
    if done.exit_code != 0 or report.timed is None:
        raise DeviceUnavailableError(
            f"benchmark_model starts on {transport.address} but does not run a model (status {done.exit_code}: "
            f"{report.problem or done.last_line})",
            fix=another_build(transport.address),
        )
    return report.timed.mean_us / 1e3


def _check_hash(received: str, expected: str | None, source: str) -> None:
    if expected is not None and received != expected.lower():
        raise DeviceUnavailableError(
            f"{source} is not the expected file", expected=f"SHA-256 {expected.lower()}", received=f"{received}"
        )


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_TOOL_BYTES + 1)
    except OSError as error:
        raise SpecError(
            f"the benchmark_model {file} cannot be read: {words_of(error)}", fix="check its path"
        ) from error
    return _limited(data, str(file))


def _fetched(url: str) -> bytes:
    if not url.lower().startswith("https://"):
        raise SpecError("A benchmark_model is fetched by https only", received=f"{url!r:.200}")
    opener = urllib.request.build_opener(_HttpsOnly)
    try:
        with opener.open(url, timeout=_DOWNLOAD_TIMEOUT_S) as answer:
            data: bytes = answer.read(MAX_TOOL_BYTES + 1)
    except (OSError, HTTPException, ValueError) as error:
        raise DeviceUnavailableError(
            f"{url} cannot be fetched: {words_of(error)}",
            fix="fetch it by other means, and name the file with --benchmark-model",
        ) from error
    return _limited(data, url)


def _limited(data: bytes, source: str) -> bytes:
    if len(data) > MAX_TOOL_BYTES:
        raise SpecError(f"{source} is not a benchmark_model: it has more than {MAX_TOOL_BYTES >> 20} MiB")
    return data


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follows no redirection to anything but https."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.lower().startswith("https://"):
            raise urllib.error.URLError(f"it redirects to {newurl[:100]!r}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)

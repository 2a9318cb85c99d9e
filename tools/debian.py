"""Files from Debian packages, fetched with apt but without touching the system's apt, and without root.

The mirror is the one this machine's apt already uses; apt checks the signatures. Used by `prepare_adbd.py`,
`prepare_board_python.py` and `build_benchmark_model.py`.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
TRIPLET = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}


class PrepareError(Exception):
    """What is wanted cannot be had here; the message says why."""


def cache_folder() -> Path:
    """Where things are kept: $NAS_EDGE_CACHE, else the user's cache folder."""
    root = os.environ.get("NAS_EDGE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "nas_edge"
    return Path(root).expanduser()


def architecture() -> str:
    """Debian's name of this machine's architecture."""
    name = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine())
    if name is None or sys.platform != "linux":
        raise PrepareError(
            f"there is nothing for {sys.platform} on {platform.machine()}; needs Linux on x86-64 or arm64"
        )
    return name


class Archive:
    """One suite of Debian's archive, with lists of its own in a folder.

    Args:
        folder: An empty folder to work in.
        suite: For example "trixie".
        mirror: URI of the archive; None for the one of this machine's apt.
        sources: Whether sources are wanted, too.
        for_architecture: Debian's name of the architecture of the packages; None for this machine's.
    """

    def __init__(
        self,
        folder: Path,
        suite: str,
        mirror: str | None = None,
        sources: bool = False,
        for_architecture: str | None = None,
    ) -> None:
        for tool in ("apt-get", "dpkg-deb"):
            if shutil.which(tool) is None:
                raise PrepareError(f"{tool} is not installed; this needs a Debian or Ubuntu machine")
        if not KEYRING.is_file():
            raise PrepareError(f"{KEYRING} is missing; install the package debian-archive-keyring")
        self._folder = folder
        self._suite = suite
        for name in ("lists/partial", "cache/archives/partial", "etc"):
            (folder / name).mkdir(parents=True)
        kinds = ("deb", "deb-src") if sources else ("deb",)
        place = f"{mirror or _own_mirror()} {suite} main\n"
        for_architecture = for_architecture or architecture()
        options = f"[arch={for_architecture} signed-by={KEYRING}]"
        (folder / "etc/sources.list").write_text("".join(f"{kind} {options} {place}" for kind in kinds))
        (folder / "status").touch()  # nothing is installed, so that every dependency is fetched
        settings = {
            "Dir::Etc::sourcelist": f"{folder}/etc/sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": f"{folder}/lists",
            "Dir::State::status": f"{folder}/status",
            "Dir::Cache": f"{folder}/cache",
            "APT::Architecture": for_architecture,
            "APT::Architectures": for_architecture,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "",  # apt's own user cannot write into a home folder
            "Acquire::Languages": "none",
            # A mirror that is frozen for reproducibility is old on purpose; signatures are still checked.
            "Acquire::Check-Valid-Until": "false",
            # Nothing is installed, and only root could take the lock.
            "Debug::NoLocking": "true",
        }
        (folder / "apt.conf").write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
        self._environment = {**os.environ, "APT_CONFIG": str(folder / "apt.conf"), "LC_ALL": "C"}
        call(["apt-get", "-qq", "update"], env=self._environment)

    def packages(self, names: Sequence[str]) -> list[Path]:
        """Fetches just these packages."""
        target = self._folder / "packages"
        target.mkdir()
        wanted = [f"{name}/{self._suite}" for name in names]
        call(["apt-get", "-qq", "download", *wanted], env=self._environment, cwd=target)
        found = sorted(target.glob("*.deb"))
        if len(found) != len(names):
            raise PrepareError(f"expected {len(names)} packages, apt fetched {len(found)}")
        return found

    def packages_with_dependencies(self, names: Sequence[str]) -> list[Path]:
        """Fetches these packages and whatever they need."""
        call(["apt-get", "-qq", "--yes", "--download-only", "install", *names], env=self._environment)
        return sorted((self._folder / "cache/archives").glob("*.deb"))

    def source(self, name: str) -> Path:
        """Fetches the upstream source of a package, without Debian's patches."""
        target = self._folder / "source"
        target.mkdir()
        call(["apt-get", "-qq", "--download-only", "--tar-only", "source", name], env=self._environment, cwd=target)
        found = sorted(target.glob("*.orig.tar.*"))
        if len(found) != 1:
            raise PrepareError(f"expected the source of {name}, apt fetched {[file.name for file in found]}")
        return found[0]


def unpack(packages: Sequence[Path], root: Path) -> None:
    """Unpacks packages into a root folder; nothing is configured."""
    for package in packages:
        call(["dpkg-deb", "-x", str(package), str(root)])


def hashes(files: Sequence[Path]) -> dict[str, str]:
    """SHA-256 by file name, for a manifest."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def call(command: Sequence[str], env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Runs a command and returns what it printed."""
    try:
        done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PrepareError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise PrepareError(f"{' '.join(command[:3])} failed ({done.returncode}): {done.stderr.strip()[-500:]}")
    return done.stdout + done.stderr


def _own_mirror() -> str:
    """The first Debian archive among this machine's apt sources."""
    stanzas = []
    for file in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")):
        for text in re.split(r"\n\s*\n", file.read_text(errors="replace")):
            fields = dict(re.findall(r"^([\w-]+):[ \t]*(.+)$", text, re.MULTILINE))
            if fields.get("Enabled", "yes") == "yes" and "deb" in fields.get("Types", "").split():
                stanzas.append((fields.get("URIs", "").split(), fields.get("Components", "").split()))
    for file in [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*.list"))]:
        text = file.read_text(errors="replace") if file.is_file() else ""
        for uri, rest in re.findall(r"^deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+\S+\s+(.+)$", text, re.MULTILINE):
            stanzas.append(([uri], rest.split()))
    for uris, components in stanzas:
        for uri in uris:
            if re.search(r"/debian/?$", uri) and "main" in components:
                return uri
    raise PrepareError("no Debian archive among this machine's apt sources; give one with --mirror URI")

"""The RSA key by which phones know this computer."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from device_agents.errors import DeviceUnavailableError
from device_agents.wording import words_of


def config_folder() -> Path:
    """Returns the user's folder for this program's settings; it need not exist."""
    if sys.platform == "win32":
        base = os.environ.get("APPDATA") or "~/AppData/Roaming"
    elif sys.platform == "darwin":
        base = "~/Library/Application Support"
    else:
        base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "nas_edge"


def key_files() -> list[Path]:
    """Returns the private keys to offer: this program's, made if it is not there, then the `adb` program's.

    A phone that already trusts this computer's `adb` need not ask again.

    Raises:
        DeviceUnavailableError: If a key cannot be made.
    """
    found = [own_key_file()]
    of_adb = Path("~/.android/adbkey").expanduser()
    if all(os.access(file, os.R_OK) for file in (of_adb, public_file(of_adb))):
        found.append(of_adb)
    return found


def own_key_file() -> Path:
    """Returns this program's private key, readable by its user only; the public one is beside it (.pub).

    Raises:
        DeviceUnavailableError: If it cannot be made.
    """
    file = config_folder() / "adbkey"
    try:
        if not (file.is_file() and public_file(file).is_file()):
            _make_key(file)
        file.chmod(0o600)
    except OSError as error:
        raise DeviceUnavailableError(
            f"The key for phones cannot be written: {words_of(error)}",
            fix=f"make {file.parent} writable, or set XDG_CONFIG_HOME",
        ) from error
    return file


def public_file(private: Path) -> Path:
    """Returns where the public half of a key is."""
    return private.with_name(private.name + ".pub")


def _make_key(file: Path) -> None:
    from adb_shell.auth.keygen import keygen

    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Made in a folder that only the user can enter, since keygen sets no permissions of its own; the public half
    # is moved first, so that a private key without one is never found.
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        new = Path(folder) / "adbkey"
        keygen(str(new))
        public = public_file(new)
        # Phones keep one key in a line.
        public.write_text(public.read_text().strip() + "\n")
        new.chmod(0o600)
        public.replace(public_file(file))
        new.replace(file)

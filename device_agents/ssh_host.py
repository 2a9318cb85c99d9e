"""A host that is reached over SSH: `ssh://[USER@]HOST[:PORT]`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from device_agents.addresses import well_formed

_FORM = "ssh://[USER@]HOST[:PORT]"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,100}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}|[0-9A-Fa-f:.%]{2,60}")


@dataclass(frozen=True)
class SshHost:
    """Where a host is.

    Attributes:
        host: A name out of the user's SSH configuration, a host name or an IP address.
        user: None for what the configuration says.
        port: None for what the configuration says.
    """

    host: str
    user: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port else ""
        return f"ssh://{user}{host}{port}"

    @property
    def called(self) -> str:
        """What it is called in messages."""
        return f"host {self}"

    @property
    def for_ssh(self) -> str:
        """Arguments of OpenSSH's client that reach the same, for messages."""
        port = f"-p {self.port} " if self.port else ""
        return f"{port}{self.user}@{self.host}" if self.user else f"{port}{self.host}"


def split_host(rest: str) -> tuple[SshHost, SplitResult] | str:
    """Returns the host that is named after `ssh:`, and all parts of that; or what is wrong with it."""
    if not rest.startswith("//"):
        return "'//' must follow 'ssh:'"
    try:
        parts = urlsplit(f"ssh:{rest}")
        port = parts.port
    except ValueError as error:
        return str(error)
    # urlsplit makes host names small; names in an SSH configuration are told apart by it.
    host = parts.netloc.rpartition("@")[2].partition("]")[0].lstrip("[") if "]" in parts.netloc else ""
    host = host or parts.netloc.rpartition("@")[2].partition(":")[0]
    if parts.password is not None:
        return "a password must not stand in an address; use a key (ssh-copy-id)"
    if not _HOST.fullmatch(host):
        return "a host name must follow '//'"
    if parts.username is not None and not _NAME.fullmatch(parts.username):
        return "the user name has characters that are not allowed"
    return SshHost(host, parts.username, port), parts


def is_host(text: str) -> bool:
    """Whether a text is meant as the address of a host, well-formed or not."""
    return text.startswith("ssh:")


def read_host(address: str) -> SshHost:
    """Returns a host by its address.

    Raises:
        DeviceAddressError: If it is malformed.
    """
    found = split_host(address.removeprefix("ssh:"))
    if not isinstance(found, str) and f"{found[0]}" != address.rstrip("/"):
        found = "nothing may follow the host"
    return well_formed(found, _FORM, address, "Bad address of a host")[0]

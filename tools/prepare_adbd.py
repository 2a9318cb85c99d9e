#!/usr/bin/env python3
"""A real ADB daemon on this machine, to develop and test against without a phone.

    prepare_adbd.py prepare   downloads AOSP's adbd from Debian into a cache folder and prints the folder
    prepare_adbd.py serve     runs it, contained, and prints its address: adb://127.0.0.1:PORT
    prepare_adbd.py adb ...   runs AOSP's adb, the client and server, with these arguments

No root is needed, and the system's apt is left alone (see `debian.py`; `--mirror` is for machines that are not Debian).
Besides adbd and adb, `prepare` fetches mksh and toybox, the shell and the tools Android itself has.

`serve` puts the daemon into its own user, process, mount and network namespaces and a root folder of its own, because
adbd binds to every interface and runs whatever it is told: it must not reach this machine's files or processes. What
it listens on in there is relayed to one port of this machine's loopback interface. It ends when its standard input
does. Lines read there: `kill` (the daemon, by SIGKILL), `start`, `cut` (every connection), `stall` (pass nothing on),
`flow`, `allow FILE` (accept this public key), `revoke` (every key); each is answered with `ok` or `error: ...`.

It is not a phone: no Android framework (getprop, dumpsys), no USB, no accelerator, and this machine's CPU. Files in
the folder given by `--overlay` are laid over its root, so that tests can supply what is missing.

Python 3.10 or newer on Linux x86-64 or arm64; nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from debian import TRIPLET, Archive, PrepareError, architecture, cache_folder, call, hashes, unpack

SUITE = "trixie"
PACKAGES = [
    "adbd",
    "adb",
    "android-libbase",
    "android-libboringssl",
    "android-libcutils",
    "android-liblog",
    "android-libziparchive",
    "libbrotli1",
    "libc6",
    "libgcc-s1",
    "liblz4-1",
    "libprotobuf32t64",
    "libstdc++6",
    "libsystemd0",
    "libudev1",
    "libusb-1.0-0",
    "libzstd1",
    "libxxhash0",
    "zlib1g",
    "libcap2",
    "mksh",
    "toybox",
    "libcrypt1",
    "libselinux1",
    "libpcre2-8-0",
    "libssl3t64",
]
ADBD = "usr/lib/android-sdk/platform-tools/adbd"
ADB = "usr/lib/android-sdk/platform-tools/adb"
MANIFEST = "manifest.json"
LAYOUT_VERSION = 2
INNER_PORT = 5555
# Debian's patch switches authentication off with one instruction; this is AOSP's own value again (x86-64 build).
AUTH_OFF, AUTH_ON = bytes.fromhex("488d0573ef0200c60000"), bytes.fromhex("488d0573ef0200c60001")


# ---------------------------------------------------------------------------------------------------------- prepare


def prepare(cache: Path, mirror: str | None) -> Path:
    """Returns a folder with the unpacked daemon, downloading it if it is not there."""
    final = cache / f"{SUITE}-{architecture()}-{LAYOUT_VERSION}"
    if (final / MANIFEST).is_file():
        _verify(final)
        return final
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="new-") as name:
        packages = Archive(Path(name) / "apt", SUITE, mirror).packages(PACKAGES)
        root = Path(name) / "root"
        unpack(packages, root)
        (root / "usr/bin/sh").symlink_to("mksh")  # what adbd of a host build starts
        (root / MANIFEST).write_text(json.dumps(hashes(packages), indent=1))
        _verify(root)
        # Another process may have been quicker: its folder is as good as ours.
        with contextlib.suppress(OSError):
            root.rename(final)
    _verify(final)
    return final


def start_command(root: Path, program: str) -> list[str]:
    """How a program of the folder is started: through the loader and the libraries beside it."""
    libraries = root / "usr/lib" / TRIPLET[architecture()]
    loader = next(libraries.glob("ld-linux-*.so.*"), None)
    if loader is None or not (root / program).is_file():
        raise PrepareError(f"{root} is incomplete; delete it and run this again")
    return [str(loader), "--library-path", f"{libraries}:{libraries}/android", str(root / program)]


def _verify(root: Path) -> None:
    """Runs both programs' --version."""
    for program in (ADBD, ADB):
        answer = call([*start_command(root, program), "--version"])
        if "Android Debug Bridge" not in answer:
            raise PrepareError(f"{root / program} does not run here: {answer.strip()[:200]!r}")


# ------------------------------------------------------------------------------------------------------------ serve


def serve(arguments: argparse.Namespace) -> int:
    """Starts this script again inside namespaces of its own, with a listening socket of this machine's loopback."""
    root = prepare(arguments.cache, arguments.mirror)
    # A socket stays in the network namespace it was created in: this is the one way in.
    listener = socket.create_server(("127.0.0.1", arguments.port), backlog=32)
    listener.set_inheritable(True)
    with tempfile.TemporaryDirectory(prefix="adbd-") as work:
        inside = [
            *["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--net", "--"],
            *[sys.executable, str(Path(__file__).resolve()), "inside"],
            *["--root", str(root), "--work", work, "--listener", str(listener.fileno())],
            *["--data-mib", str(arguments.data_mib), *(["--auth"] if arguments.auth else [])],
            *(part for overlay in arguments.overlay for part in ("--overlay", str(overlay.resolve()))),
            *(["--host"] if arguments.host else []),
        ]
        try:
            return subprocess.run(inside, pass_fds=[listener.fileno()], check=False).returncode
        except OSError as error:
            raise PrepareError(f"cannot contain it: {error}; install util-linux") from error


def inside(arguments: argparse.Namespace) -> int:
    """The first process of the new namespaces: builds the root folder, runs the daemon, relays to it."""
    _run(["ip", "link", "set", "lo", "up"])
    phone = _Phone(arguments.root, arguments.work, arguments.data_mib, arguments.auth)
    phone.build(arguments.overlay, arguments.host)
    phone.start()
    listener = socket.socket(fileno=arguments.listener)
    relay = _Relay(listener)
    threading.Thread(target=relay.serve, daemon=True).start()
    print(f"adb://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    orders: dict[str, Callable[..., None]] = {
        "kill": phone.kill,
        "start": phone.start,
        "cut": relay.cut,
        "stall": relay.flow.clear,
        "flow": relay.flow.set,
        "allow": phone.allow,
        "revoke": phone.revoke,
    }
    for line in sys.stdin:
        name, *words = line.split(maxsplit=1)
        try:
            if name not in orders:
                raise PrepareError(f"unknown order; known are {', '.join(orders)}")
            orders[name](*(word.strip() for word in words))
        except (PrepareError, OSError) as error:
            print(f"error: {error}", flush=True)
        else:
            print("ok", flush=True)
    os._exit(0)  # with the first process of a namespace goes everything in it


class _Phone:
    """A root folder and the daemon in it."""

    def __init__(self, image: Path, work: Path, data_mib: int, auth: bool) -> None:
        self._image = image
        self._root = work / "root"
        self._log = work / "adbd.log"
        self._data_mib = data_mib
        self._auth = auth
        self._pid = 0
        signal.signal(signal.SIGCHLD, self._reap)

    def build(self, overlays: Sequence[Path], host: bool) -> None:
        root = self._root
        root.mkdir()
        for name in ("usr", "proc", "dev", "tmp", "data", "system/bin", "sys", "sdcard", "readonly"):
            (root / name).mkdir(parents=True)
        for name in ("bin", "lib", "lib64", "sbin"):
            (root / name).symlink_to(f"usr/{name}")
        _run(["mount", "--bind", str(self._image / "usr"), str(root / "usr")])
        _run(["mount", "-o", "remount,bind,ro", str(root / "usr")])
        _run(["mount", "-t", "proc", "proc", str(root / "proc")])
        _run(["mount", "--rbind", "/dev", str(root / "dev")])
        _run(["mount", "-t", "tmpfs", "-o", f"size={self._data_mib}m", "tmpfs", str(root / "data")])
        _run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(root / "readonly")])
        (root / "data/local/tmp").mkdir(parents=True)
        (root / "data/misc/adb").mkdir(parents=True)
        self._install_tools()
        for overlay in overlays:
            shutil.copytree(overlay, root, symlinks=True, dirs_exist_ok=True)
        if host:
            (root / "host").mkdir()
            (root / "host-root").write_text(str(root))  # where this root is, seen from there
            _run(["mount", "--rbind", "/", str(root / "host")])

    def _install_tools(self) -> None:
        """Android's places: /system/bin/sh is mksh, the tools are toybox."""
        tools = self._root / "system/bin"
        listed = self._in_root(["/usr/bin/toybox"])
        for name in listed.split():
            if re.fullmatch(r"[\w\[.-]+", name) and name not in ("sh", "toybox"):
                (tools / name).symlink_to("/usr/bin/toybox")
        (tools / "sh").symlink_to("/usr/bin/mksh")

    def _in_root(self, command: list[str]) -> str:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda: _enter(self._root),  # one thread only so far
            env={"PATH": "/usr/bin"},
        )
        return done.stdout

    def start(self) -> None:
        if self._pid:
            raise PrepareError("it is running")
        binary = "/" + ADBD
        if self._auth:
            binary = self._with_authentication()
        environment = {
            "PATH": "/system/bin:/usr/bin:/bin",
            "ANDROID_ROOT": "/system",
            "ANDROID_DATA": "/data",
            "ADBD_PORT": str(INNER_PORT),
        }
        log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDWR)
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                for target, source in ((0, nothing), (1, log), (2, log)):
                    os.dup2(source, target)
                os.closerange(3, 256)
                _enter(self._root)
                os.execve(binary, ["adbd"], environment)
            finally:
                os._exit(127)
        os.close(log)
        os.close(nothing)
        self._pid = pid
        self._wait_until_it_listens()

    def kill(self) -> None:
        if not self._pid:
            raise PrepareError("it is not running")
        pid = self._pid
        os.kill(pid, signal.SIGKILL)
        while self._pid:
            time.sleep(0.005)

    def allow(self, public_key: str) -> None:
        with (self._root / "data/misc/adb/adb_keys").open("a") as keys:
            keys.write(Path(public_key).read_text().strip() + "\n")

    def revoke(self) -> None:
        (self._root / "data/misc/adb/adb_keys").write_text("")

    def _wait_until_it_listens(self) -> None:
        deadline_s = time.monotonic() + 10
        while time.monotonic() < deadline_s and self._pid:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", INNER_PORT), timeout=1):
                return
            time.sleep(0.01)
        log = self._log.read_text(errors="replace")[-500:]
        raise PrepareError(f"the daemon does not start: {log}")

    def _with_authentication(self) -> str:
        data = (self._image / ADBD).read_bytes()
        if data.count(AUTH_OFF) != 1:
            raise PrepareError("this build of adbd is not known: authentication cannot be switched on")
        patched = self._root / "adbd"
        patched.write_bytes(data.replace(AUTH_OFF, AUTH_ON))
        patched.chmod(0o755)
        return "/adbd"

    def _reap(self, *_: object) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, _status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._pid:
                    self._pid = 0


class _Relay:
    """Passes connections of one listening socket on to the daemon."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.flow = threading.Event()
        self.flow.set()

    def serve(self) -> None:
        while True:
            outer, _ = self._listener.accept()
            try:
                inner = socket.create_connection(("127.0.0.1", INNER_PORT), timeout=5)
                inner.settimeout(None)
            except OSError:
                outer.close()
                continue
            for one, other in ((outer, inner), (inner, outer)):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()
            with self._lock:
                self._open |= {outer, inner}

    def cut(self) -> None:
        with self._lock:
            victims, self._open = self._open, set()
        for one in victims:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 18):
                self.flow.wait()
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open.discard(source)
        source.close()


def _enter(root: Path) -> None:
    os.chroot(root)
    os.chdir("/")


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise PrepareError(f"{command[0]} is needed to contain it: {error}") from error
    if done.returncode != 0:
        raise PrepareError(f"{' '.join(command)}: {done.stderr.strip()}")


# ---------------------------------------------------------------------------------------------------------- command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("prepare", "serve"):
        command = commands.add_parser(name)
        command.add_argument("--cache", type=Path, default=cache_folder() / "adbd", help="default: %(default)s")
        command.add_argument("--mirror", help="URI of a Debian archive; default: the one of this machine's apt")
    command.add_argument("--port", type=int, default=0, help="of 127.0.0.1; default: any free one")
    command.add_argument("--auth", action="store_true", help="ask for a key, as phones do: /data/misc/adb/adb_keys")
    command.add_argument("--data-mib", type=int, default=256, help="size of /data; default: %(default)s")
    command.add_argument("--overlay", type=Path, action="append", default=[], help="folder laid over the root")
    command.add_argument(
        "--host", action="store_true", help="let it see this machine's files, at /host: less contained"
    )
    command = commands.add_parser("adb", prefix_chars="\0")  # every argument is adb's
    command.add_argument("words", nargs="*")
    command = commands.add_parser("inside")  # what `serve` starts; not for people
    command.add_argument("--root", type=Path, required=True)
    command.add_argument("--work", type=Path, required=True)
    command.add_argument("--listener", type=int, required=True)
    command.add_argument("--auth", action="store_true")
    command.add_argument("--data-mib", type=int, required=True)
    command.add_argument("--overlay", type=Path, action="append", default=[])
    command.add_argument("--host", action="store_true")
    return parser


def main() -> int:
    """Runs the command; a problem is one line on standard error and exit status 1."""
    arguments = _parser().parse_args()
    try:
        if arguments.command == "prepare":
            print(prepare(arguments.cache, arguments.mirror))
            return 0
        if arguments.command == "adb":
            program = start_command(prepare(cache_folder() / "adbd", None), ADB)
            os.execv(program[0], [*program, *arguments.words])
        return serve(arguments) if arguments.command == "serve" else inside(arguments)
    except PrepareError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

"""The schemes of Android phones. What talks to phones is imported when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from device_agents.api import DeviceAgent
from device_agents.checks import Check
from device_agents.scheme import DeviceRow, Scheme, Setup, SetupOption


def _open(name: str) -> Callable[[str], DeviceAgent]:
    def open_(rest: str) -> DeviceAgent:
        from device_agents.android.address import open_phone

        return open_phone(f"{name}:{rest}")

    return open_


def _doctor(name: str) -> Callable[[str], Sequence[Check]]:
    def doctor(rest: str) -> Sequence[Check]:
        from device_agents.android.doctor import examine_phone

        return examine_phone(f"{name}:{rest}")

    return doctor


def _clean(name: str) -> Callable[[str], Sequence[str]]:
    def clean(rest: str) -> Sequence[str]:
        from device_agents.android.address import open_transport
        from device_agents.android.stored import forget_phone

        with open_transport(f"{name}:{rest}") as transport:
            return forget_phone(transport)

    return clean


def _complete(name: str) -> Callable[[str], Sequence[str]]:
    def complete(_: str) -> Sequence[str]:
        from device_agents.android.address import known_serials

        return known_serials(name)

    return complete


def _setup(name: str) -> Setup:
    def set_up(rest: str, options: Mapping[str, str]) -> Sequence[tuple[str, str]]:
        from device_agents.android.address import open_transport
        from device_agents.android.setup import set_up

        with open_transport(f"{name}:{rest}") as transport:
            return set_up(transport, options.get("benchmark-model"), options.get("sha256")).facts()

    return Setup(
        set_up,
        options=(
            SetupOption("benchmark-model", "FILE|URL", "TFLite's benchmark_model for the phone; https.", is_file=True),
            SetupOption("sha256", "HEX", "What the SHA-256 of the tool must be."),
        ),
        example="adb: --benchmark-model android_aarch64_benchmark_model",
    )


def _problem(rest: str) -> str:
    from device_agents.android.address import address_problem

    return address_problem(rest)


def _serial_problem(rest: str) -> str:
    from device_agents.android.address import serial_problem

    return serial_problem(rest)


def _list() -> Sequence[DeviceRow]:
    from device_agents.android.listing import list_phones

    return list_phones()


def _check_host() -> Sequence[Check]:
    from device_agents.android.host_checks import check_adb_server, check_usb

    return [*check_usb(), check_adb_server()]


_USB = {"adb_shell": "adb-shell ~= 0.4.4", "usb1": "adb-shell[usb] ~= 0.4.4"}
_SERVER = {"adb_shell": "adb-shell ~= 0.4.4", "adbutils": "adbutils >= 2.12, < 3"}

SCHEMES = (
    Scheme(
        name="adb",
        form="adb:[SERIAL] or adb://HOST:PORT",
        what="an Android phone",
        open=_open("adb"),
        problem=_problem,
        list=_list,
        doctor=_doctor("adb"),
        setup=_setup("adb"),
        complete=_complete("adb"),
        clean=_clean("adb"),
        packages={**_USB, **_SERVER},
        check_host=_check_host,
    ),
    Scheme(
        name="adb-usb",
        form="adb-usb:[SERIAL]",
        what="an Android phone on USB, even if an adb server runs",
        open=_open("adb-usb"),
        problem=_serial_problem,
        doctor=_doctor("adb-usb"),
        setup=_setup("adb-usb"),
        complete=_complete("adb-usb"),
        clean=_clean("adb-usb"),
        packages=_USB,
    ),
    Scheme(
        name="adb-server",
        form="adb-server:[SERIAL]",
        what="an Android phone of the adb server, for example one paired over Wi-Fi",
        open=_open("adb-server"),
        problem=_serial_problem,
        doctor=_doctor("adb-server"),
        setup=_setup("adb-server"),
        complete=_complete("adb-server"),
        clean=_clean("adb-server"),
        packages=_SERVER,
    ),
)

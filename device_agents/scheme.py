"""`Scheme`: everything this program can do with one kind of device address, as data and functions.

The table of schemes is `schemes.SCHEMES`. A family of devices builds its schemes in its own file, and imports what
talks to devices inside of the functions, so that looking at the table loads none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from device_agents.api import DeviceAgent
from device_agents.checks import Check


@dataclass(frozen=True)
class DeviceRow:
    """One line of the list of devices.

    Attributes:
        address: What `open_device` takes.
        kind: Scheme, for example "host".
        model: Product or CPU name, or "" if unknown.
        state: "ready", "unavailable", or what else is in the way.
        detail: Runtime and cores, or why it is unavailable.
        fix: What to do about that, where it takes more than a few words.
        present: False for a line that stands for no device but says why none was found.
    """

    address: str
    kind: str
    model: str
    state: str
    detail: str
    fix: str = ""
    present: bool = True


@dataclass(frozen=True)
class SetupOption:
    """An option of `nas-edge devices setup`.

    Attributes:
        name: Without the dashes: "sha256" is given as --sha256 VALUE.
        metavar: What stands for the value in the help.
        help: What it means.
        is_file: Whether the value is a file of this machine (or a URL), which goes along to a device of another host.
    """

    name: str
    metavar: str
    help: str
    is_file: bool = False


@dataclass(frozen=True)
class Setup:
    """How a device is made ready for measuring.

    Attributes:
        run: Given the part of the address after the colon and the options by name (only those that were given), sets
            the device up and returns what was done, as pairs of a word and a fact.
        options: What else it takes.
        example: Arguments of `nas-edge devices setup` to show in its help.
        options_at: What it takes besides for the device at REST.
    """

    run: Callable[[str, Mapping[str, str]], Sequence[tuple[str, str]]]
    options: tuple[SetupOption, ...] = ()
    example: str = ""
    options_at: Callable[[str], Sequence[SetupOption]] = lambda rest: ()


@dataclass(frozen=True)
class Scheme:
    """How addresses of one scheme look, and what can be done with the devices they name.

    All functions raise `DeviceError` when something is wrong with the device or the way to it. REST is the part of an
    address after the colon.

    Attributes:
        name: The part before it: small letters, digits and dashes.
        form: The address as shown to users.
        what: What it is, in a few words.
        open: Returns the agent for REST.
        problem: Returns what is wrong with REST, or "".
        list: Returns the devices that are found without being named, in seconds at most; None if none can be.
        doctor: Returns what was found looking at the device at REST; None if opening it and measuring twice says all.
        setup: How a device is made ready; None if nothing has to be done.
        complete: Returns how REST may go on, given what is typed of it, within a blink and without asking a device
            anything; None if that is not known.
        rest_is_file: Whether REST is the path of a file.
        check_host: Returns what this machine lacks for reaching such devices, for `nas-edge doctor`; None if it always
            can.
        clean: Removes what stays for measuring on the device at REST, or is kept about it, and returns a line for each
            thing that was removed; the next time, there is none. None if nothing ever stays.
        list_at: Returns the devices that are found at REST, where that is a host with devices of its own; None if it
            never is.
        packages: What another host needs for such devices beside NumPy: requirements for pip, by the module that tells
            whether they are there.
    """

    name: str
    form: str
    what: str
    open: Callable[[str], DeviceAgent]
    problem: Callable[[str], str] = lambda rest: ""
    list: Callable[[], Sequence[DeviceRow]] | None = None
    doctor: Callable[[str], Sequence[Check]] | None = None
    setup: Setup | None = None
    complete: Callable[[str], Sequence[str]] | None = None
    rest_is_file: bool = False
    check_host: Callable[[], Sequence[Check]] | None = None
    clean: Callable[[str], Sequence[str]] | None = None
    list_at: Callable[[str], Sequence[DeviceRow]] | None = None
    packages: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, rest: str) -> DeviceAgent:
        """Opens a device: a scheme can stand wherever a function from REST to an agent can."""
        return self.open(rest)

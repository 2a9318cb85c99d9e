"""The far side of a farm: answers messages about one device of this host with its `DeviceAgent`.

Knows nothing of what carries the messages; `farm.actor` has Ray do it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any

from device_agents.api import BenchmarkSpec, DeviceAgent
from device_agents.device_lock import running_machine
from device_agents.devices import clean_device, open_device, set_up_device
from device_agents.doctor import examine
from device_agents.errors import DeviceError, ProtocolError, WorkerError
from device_agents.farm.messages import (
    PROTOCOL,
    SPEC_FIELDS,
    describe_error,
    pack,
    pack_json,
    unpack,
    unpack_list,
)
from device_agents.remote_frames import checks_json
from device_agents.wording import words_of
from device_agents.worker.frames import Frame
from device_agents.worker.tensors import decode_arrays, encode_arrays


class FarSide:
    """Answers messages about a device, one at a time; the device is opened when it is first needed.

    What the agent here has sent is kept for a session, which ends with this process: models until the agent says that
    they are no longer needed, and the examples that models are timed on.

    Args:
        device: The device's address on this host.
        open_agent: Opens it; tests may pass their own.
    """

    def __init__(self, device: str, open_agent: Callable[[str], DeviceAgent] = open_device) -> None:
        self._device, self._open = device, open_agent
        self._agent: DeviceAgent | None = None
        self._session = secrets.token_hex(8)
        self._models: dict[str, bytes] = {}
        self._serve_first()

    def answer(self, request: bytes) -> bytes:
        """Answers a message, see `farm.messages`; whatever goes wrong is an answer, too."""
        handlers: dict[str, Callable[[Frame], bytes]] = {
            "about": lambda _: pack(_about()),
            "hello": self._hello,
            "examples": self._examples,
            "measure": self._measure,
            "run": self._run,
            "cores": self._cores,
            "doctor": self._doctor,
            "setup": self._set_up,
            "clean": self._clean,
        }
        try:
            frame = unpack(request)
            handler = handlers.get(str(frame.header.get("do")))
            if handler is None:
                raise ProtocolError("Unknown request", expected=f"one of {sorted(handlers)}")
            if frame.header.get("session", self._session) != self._session:
                return pack({"restarted": True})  # what the agent believes to be here is not; it has not been asked yet
            return handler(frame)
        except DeviceError as error:
            return pack(describe_error(error))
        except Exception as error:  # a bug here must not cost the device
            return pack(describe_error(WorkerError(f"What serves {self._device} failed: {words_of(error)}")))

    def _serve_first(self) -> None:
        """Takes back what Ray has taken: its processes come after all others (nice 15), where that may be changed."""
        if sys.platform != "win32":
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, 0, 0)

    def _opened(self) -> DeviceAgent:
        if self._agent is None:
            self._agent = self._open(self._device)
        return self._agent

    def _close(self) -> None:
        if self._agent is not None:
            self._agent.close()
            self._agent = None

    def _hello(self, _: Frame) -> bytes:
        agent = self._opened()
        info = agent.info()
        names = ("model", "soc", "cores", "memory_bytes", "os")
        return pack(
            {
                **_about(),
                "session": self._session,
                "kind": info.kind,
                "device": {name: getattr(info, name) for name in names},
                "runtime": info.runtime,
                "runtime_version": info.runtime_version,
                "measures_on_host": info.measures_on_host,
                "recorded": agent.recorded,
                "rounds_at_once": agent.rounds_at_once,
                "spec_fields": list(SPEC_FIELDS),
            }
        )

    def _examples(self, frame: Frame) -> bytes:
        (examples,) = decode_arrays(frame.header.get("inputs"), frame.blobs)
        return pack({"digest": self._opened().take_examples(examples)})

    def _measure(self, frame: Frame) -> bytes:
        """Measures models by their digests: what was sent before, and what comes with the request."""
        listing, *models = frame.blobs
        (specs, order) = unpack_list(listing)
        for digest in frame.header["forget"]:
            self._models.pop(digest, None)
        self._models.update(zip(frame.header["sent"], models, strict=True))
        settings = [BenchmarkSpec.from_json(spec) for spec in specs]
        requests = [(self._models[digest], settings[spec]) for digest, spec in order]
        agent = self._opened()
        found = [agent.measure(*requests[0])] if frame.header["in_one_go"] else agent.measure_all(requests)
        return pack({}, [pack_json([measurement.to_json() for measurement in found])])

    def _run(self, frame: Frame) -> bytes:
        model, *blobs = frame.blobs
        descriptions, data = encode_arrays(self._opened().run(model, decode_arrays(frame.header.get("inputs"), blobs)))
        return pack({"outputs": descriptions}, data)

    def _cores(self, frame: Frame) -> bytes:
        return pack({"cores": list(self._opened().cores(str(frame.header.get("kind"))))})

    def _doctor(self, _: Frame) -> bytes:
        self._close()
        return pack({}, [pack_json(checks_json(examine(self._device, watch_s=0.0)))])

    def _set_up(self, frame: Frame) -> bytes:
        self._close()
        options = frame.header.get("options")
        facts = set_up_device(self._device, options if isinstance(options, Mapping) else {})
        return pack({}, [pack_json([[str(word), str(fact)] for word, fact in facts])])

    def _clean(self, _: Frame) -> bytes:
        self._close()
        return pack({}, [pack_json(_lines(clean_device(self._device)))])


def _about() -> dict[str, Any]:
    """What is so whatever the device."""
    return {
        "protocol": PROTOCOL,
        "version": _version(),
        "machine": running_machine(),
        "authentication": os.environ.get("RAY_AUTH_MODE", ""),
        "niceness": os.nice(0) if sys.platform != "win32" else 0,
    }


def _lines(removed: Sequence[str] | None) -> list[str]:
    return [] if removed is None else list(removed)


def _version() -> str:
    try:
        return metadata.version("nas-edge")
    except metadata.PackageNotFoundError:
        return ""

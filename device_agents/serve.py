"""The program that runs on another host and does there what is asked of that host's devices.

    remote_agent.RemoteAgent <- frames over stdin and stdout -> serve -> any agent of this host

A request is {"do": ...}; each is answered by one {"done": ...}, with the error in "raised" if there was one, and with
whether a device is open in "opened". A farm passes requests on to a `Server` by other means, see `farm`.
"""

from __future__ import annotations

import platform
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from device_agents.api import BenchmarkSpec, DeviceAgent
from device_agents.device_lock import running_machine
from device_agents.devices import clean_device, list_devices, open_device, set_up_device
from device_agents.doctor import examine
from device_agents.errors import DeviceError, DeviceUnavailableError, ProtocolError, WorkerError
from device_agents.remote_frames import checks_json, error_json, info_json, measurements_blob, rows_json
from device_agents.request_loop import run
from device_agents.wording import words_of
from device_agents.worker.frames import PROTOCOL_VERSION, Frame, pop_blobs, unpacked


class Server:
    """Does requests one after the other.

    Args:
        open_agent: Opens a device of this host; tests may pass their own.
    """

    def __init__(self, open_agent: Callable[[str], DeviceAgent] = open_device) -> None:
        self._open_agent = open_agent
        self._agent: DeviceAgent | None = None
        self._kept: dict[str, bytes] = {}  # the models of the last measurement, by SHA-256

    def answer(self, request: Frame) -> Frame:
        """Does a request; what goes wrong is part of the answer, never raised."""
        do = str(request.header.get("do"))
        handlers = {
            "hello": self._hello,
            "open": self._open,
            "info": self._info,
            "measure": self._measure,
            "run": self._run,
            "keep": self._keep,
            "cores": self._cores,
            "list": self._list,
            "doctor": self._doctor,
            "clean": self._clean,
            "setup": self._set_up,
            "close": self._close,
        }
        try:
            if do not in handlers:
                raise ProtocolError("Unknown request", expected=f"one of {sorted(handlers)}", received=f"{do!r:.80}")
            answer = handlers[do](request)
        except DeviceError as error:
            answer = Frame({"raised": error_json(error)})
        except Exception as error:
            answer = Frame({"raised": error_json(_told(error))})
        return Frame({"done": do, "opened": self._agent is not None, **answer.header}, answer.blobs)

    def is_working(self) -> bool:
        """See `Answering`; it is this process."""
        return True

    def close(self) -> None:
        """Frees the device."""
        agent, self._agent = self._agent, None
        if agent is not None:
            agent.close()

    @property
    def _opened(self) -> DeviceAgent:
        if self._agent is None:
            raise DeviceUnavailableError("What serves the device has not opened it, or was started anew")
        return self._agent

    def _hello(self, _: Frame) -> Frame:
        return Frame({"protocol": PROTOCOL_VERSION, "python": platform.python_version()})

    def _open(self, request: Frame) -> Frame:
        self.close()
        self._agent = self._open_agent(str(request.header["address"]))
        return Frame({"recorded": self._agent.recorded, "rounds_at_once": self._agent.rounds_at_once})

    def _info(self, _: Frame) -> Frame:
        return Frame({"info": info_json(self._opened.info()), "machine": running_machine()})

    def _measure(self, request: Frame) -> Frame:
        """Measures; models that came the last time are not sent again."""
        agent, header, blobs = self._opened, request.header, iter(request.blobs)
        models = {str(key): unpacked(next(blobs)) if sent else self._kept[key] for key, sent in header["models"]}
        self._kept = models
        specs = [BenchmarkSpec.from_json(spec) for spec in header["specs"]]
        requests = [(models[key], specs[position]) for key, position in header["order"]]
        if header["together"]:
            return Frame({}, (measurements_blob(agent.measure_all(requests)),))
        return Frame({}, (measurements_blob([agent.measure(*one) for one in requests]),))

    def _run(self, request: Frame) -> Frame:
        from device_agents.worker.tensors import decode_arrays, encode_arrays

        (model, *data) = pop_blobs(request, at_least=1)
        outputs = self._opened.run(unpacked(model), decode_arrays(request.header.get("inputs"), data))
        descriptions, blobs = encode_arrays(outputs)
        return Frame({"outputs": descriptions}, blobs)

    def _keep(self, request: Frame) -> Frame:
        from device_agents.worker.tensors import decode_arrays

        (examples,) = decode_arrays(request.header.get("inputs"), request.blobs)
        return Frame({"inputs": self._opened.take_examples(examples)})

    def _cores(self, request: Frame) -> Frame:
        return Frame({"cores": list(self._opened.cores(str(request.header["kind"])))})

    def _list(self, _: Frame) -> Frame:
        return Frame({"rows": rows_json(list_devices())})

    def _doctor(self, request: Frame) -> Frame:
        # The noise is watched over the link, as a search would measure.
        return Frame({"checks": checks_json(examine(str(request.header["address"]), watch_s=0.0))})

    def _clean(self, request: Frame) -> Frame:
        return Frame({"lines": list(clean_device(str(request.header["address"])) or ())})

    def _set_up(self, request: Frame) -> Frame:
        """Sets a device up; options that name files come with them."""
        options = {str(name): str(value) for name, value in request.header["options"].items()}
        with tempfile.TemporaryDirectory(prefix="nas_edge-setup-") as folder:
            for name, data in zip(request.header["files"], request.blobs, strict=True):
                file = Path(folder) / str(name) / Path(options[name]).name
                file.parent.mkdir()
                file.write_bytes(data)
                options[name] = str(file)
            return Frame({"facts": [list(fact) for fact in set_up_device(str(request.header["address"]), options)]})

    def _close(self, _: Frame) -> Frame:
        self.close()
        return Frame({})


def _told(error: Exception) -> DeviceError:
    """Returns as what the other side is told of an error that no agent should raise."""
    if isinstance(error, ImportError):
        missing = error.name or words_of(error)
        return DeviceUnavailableError(f"{sys.executable} has no module {missing!r}", fix="install it there")
    traceback.print_exc()  # the other side shows the end of stderr where this process ends by it
    return WorkerError(f"What serves the device failed: {type(error).__name__}: {words_of(error)}")


def main() -> None:
    """Serves stdin and stdout until stdin ends."""
    run(Server())


if __name__ == "__main__":
    main()

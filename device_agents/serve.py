"""The program that runs on another host and does there what is asked of that host's devices.

    remote_agent.RemoteAgent <- frames over stdin and stdout -> serve -> any agent of this host

A request is {"do": ...}; each is answered by one {"done": ...}, with the error in "raised" if there was one. While it
is being done, a {"do": "ping"} is answered by {"stage": "busy"}, so that work that takes long is told from a program
that hangs. It ends when stdin does, or brings nothing for `SILENCE_S`: then the other side is gone, and whoever comes
next must find the device free.
"""

from __future__ import annotations

import contextlib
import os
import platform
import queue
import select
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from device_agents.api import BenchmarkSpec, DeviceAgent
from device_agents.devices import clean_device, list_devices, open_device, set_up_device
from device_agents.doctor import examine
from device_agents.errors import DeviceError, DeviceUnavailableError, ProtocolError, WorkerError
from device_agents.remote_frames import LIMITS, checks_json, error_json, info_json, measurements_blob, rows_json
from device_agents.wording import words_of
from device_agents.worker.frames import PROTOCOL_VERSION, Frame, encode_frame, pop_blobs, read_frame, unpacked
from device_agents.worker.stdio import take_over_stdio, write_all

# The other side pings every few seconds.
SILENCE_S = 90.0
_END_S = 10.0


class Server:
    """Does requests one after the other."""

    def __init__(self) -> None:
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
            return Frame({"done": do, "raised": error_json(error)})
        except Exception as error:
            return Frame({"done": do, "raised": error_json(_told(error))})
        return Frame({"done": do, **answer.header}, answer.blobs)

    def close(self) -> None:
        """Frees the device."""
        agent, self._agent = self._agent, None
        if agent is not None:
            agent.close()

    @property
    def _opened(self) -> DeviceAgent:
        if self._agent is None:
            raise ProtocolError("No device was opened")
        return self._agent

    def _hello(self, _: Frame) -> Frame:
        return Frame({"protocol": PROTOCOL_VERSION, "python": platform.python_version()})

    def _open(self, request: Frame) -> Frame:
        self.close()
        self._agent = open_device(str(request.header["address"]))
        return Frame({"recorded": self._agent.recorded, "rounds_at_once": self._agent.rounds_at_once})

    def _info(self, _: Frame) -> Frame:
        return Frame({"info": info_json(self._opened.info())})

    def _measure(self, request: Frame) -> Frame:
        """Measures; models that came the last time are not sent again."""
        header, blobs = request.header, iter(request.blobs)
        models = {str(key): unpacked(next(blobs)) if sent else self._kept[key] for key, sent in header["models"]}
        self._kept = models
        specs = [BenchmarkSpec.from_json(spec) for spec in header["specs"]]
        requests = [(models[key], specs[position]) for key, position in header["order"]]
        if header["together"]:
            return Frame({}, (measurements_blob(self._opened.measure_all(requests)),))
        return Frame({}, (measurements_blob([self._opened.measure(*one) for one in requests]),))

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


class _Requests:
    """Reads requests in a thread, which also notices that the other side is gone.

    Args:
        read_fd: Where they come from.
        send: Sends a frame; called in that thread too.
    """

    def __init__(self, read_fd: int, send: Callable[[Frame], None]) -> None:
        self._read_fd, self._send = read_fd, send
        self._queue: queue.Queue[Frame | None] = queue.Queue()
        self._busy = threading.Event()
        threading.Thread(target=self._receive, daemon=True).start()

    def next(self) -> Frame | None:
        """Waits for a request; None once there will be no more."""
        self._busy.clear()
        request = self._queue.get()
        self._busy.set()
        return request

    def _receive(self) -> None:
        try:
            while (request := read_frame(self._read, LIMITS)) is not None:
                if request.header.get("do") != "ping":
                    self._queue.put(request)
                elif self._busy.is_set():
                    self._send(Frame({"stage": "busy"}))
        except (ProtocolError, OSError) as error:
            print(error, file=sys.stderr, flush=True)
        self._queue.put(None)
        if self._busy.is_set():  # as by Ctrl-C, on which agents free their device
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(_END_S)
        os._exit(1)

    def _read(self, count: int) -> bytes:
        # Asked twice, since a process that was stopped for that long finds its time over when it goes on.
        for timeout_s in (SILENCE_S, 1.0):
            if select.select([self._read_fd], [], [], timeout_s)[0]:
                return os.read(self._read_fd, count)
        raise ProtocolError(f"Nothing was heard of the other side for {SILENCE_S:.0f} s")


def main() -> None:
    """Serves stdin and stdout until stdin ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    read_fd, write_fd = take_over_stdio()
    sending = threading.Lock()
    server = Server()
    with os.fdopen(write_fd, "wb", buffering=0) as sink, contextlib.suppress(KeyboardInterrupt, BrokenPipeError):

        def send(frame: Frame) -> None:
            with sending:
                write_all(sink, encode_frame(frame))

        requests = _Requests(read_fd, send)
        try:
            while (request := requests.next()) is not None:
                send(server.answer(request))
        finally:
            server.close()


if __name__ == "__main__":
    main()

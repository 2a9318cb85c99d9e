"""What Ray runs at a device's host. Ray passes this class on by its name, so it stays as small as it is."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys

from device_agents.remote_frames import LIMITS
from device_agents.worker.frames import Frame, encode_frame, read_frame


class DeviceActor:
    """A `serve.Server` of its host, in a process that Ray gives it; frames cross as bytes."""

    def __init__(self) -> None:
        # Ray's processes come after all others (nice 15); undone where that may be changed.
        if sys.platform != "win32":
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, 0, 0)
        # By its name: it opens devices of all schemes, of which the farm is one.
        self._server = importlib.import_module("device_agents.serve").Server()

    def answer(self, request: bytes) -> bytes:
        """Answers a frame, raises nothing."""
        frame = read_frame(io.BytesIO(request).read, LIMITS) or Frame({})
        return encode_frame(self._server.answer(frame))

    def ping(self) -> None:
        """Returns at once, also while a request is being answered."""

    def about(self) -> tuple[str, int]:
        """Returns how Ray lets others in here, and the niceness of what measures."""
        return os.environ.get("RAY_AUTH_MODE", ""), os.nice(0) if sys.platform != "win32" else 0

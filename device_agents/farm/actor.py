"""What Ray runs at a device's host. Ray passes this class on by its name, so it stays as small as it is."""

from __future__ import annotations

import importlib


class DeviceActor:
    """Holds a device of its host; Ray gives it a process of its own.

    Args:
        device: The device's address on this host.
    """

    def __init__(self, device: str) -> None:
        # By its name: it opens devices of all schemes, of which the farm is one.
        self._far_side = importlib.import_module("device_agents.far_side").FarSide(device)

    def answer(self, request: bytes) -> bytes:
        """Answers a message, see `messages`; raises nothing."""
        answer: bytes = self._far_side.answer(request)
        return answer

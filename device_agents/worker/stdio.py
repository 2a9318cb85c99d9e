"""A process that answers framed requests on its stdin and stdout, one after the other, and ends when stdin does."""

from __future__ import annotations

import os
import queue
import sys
import threading
from typing import Any, Callable

from .errors import ProtocolError
from .frames import Frame, encode_frame, read_frame

Send = Callable[[Frame], None]


def serve(prepare: Callable[[Send], Callable[[Frame], None]]) -> None:
    """Answers requests; never returns. The process ends with stdin, in the middle of a request too.

    Args:
        prepare: Is given what sends a frame; loads what is needed, and returns what answers a request by sending any
            number of frames.
    """
    read_fd, write_fd = take_over_stdio()
    requests = queue.Queue()  # type: queue.Queue[Frame]
    threading.Thread(target=_receive, args=(read_fd, requests), daemon=True).start()
    with os.fdopen(write_fd, "wb", buffering=0) as sink:
        answer = prepare(lambda frame: write_all(sink, encode_frame(frame)))
        while True:
            answer(requests.get())


def _receive(read_fd: int, requests: queue.Queue[Frame]) -> None:
    """Queues requests. The end of stdin, or rubbish in it, ends the process.

    A thread, because the main one cannot look at stdin during an inference. It sleeps in
    `read` while a model is timed and so does not disturb.
    """
    try:
        while True:
            request = read_frame(lambda count: os.read(read_fd, count))
            if request is None:
                break
            requests.put(request)
    except ProtocolError as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(2)
    os._exit(0)


def take_over_stdio() -> tuple[int, int]:
    """Returns file descriptors of what were stdin and stdout, for frames alone.

    Native libraries print to file descriptor 1 at will, which would corrupt the stream;
    from here on such prints go to stderr.
    """
    read_fd, write_fd = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    return read_fd, write_fd


def write_all(sink: Any, data: bytes) -> None:
    """Writes all of the bytes to an unbuffered file."""
    view = memoryview(data)
    while view:
        view = view[sink.write(view) :]

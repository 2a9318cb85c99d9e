"""Holds back what native libraries print to stderr, so that a progress line stays readable."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def held_stderr() -> Iterator[Callable[[], str]]:
    """Sends the process's stderr to a file while the block runs.

    The converter and the runtime print from C++, past Python's `sys.stderr`, so the file descriptor itself is
    redirected. Other threads' stderr is held back, too: keep the block short.

    Yields:
        A function that returns what was printed so far, for an error message.
    """
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as file:

        def printed() -> str:
            sys.stderr.flush()
            return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")

        os.dup2(file.fileno(), 2)
        try:
            yield printed
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)


def start_tensorflow(deterministic: bool = True) -> None:
    """Imports TensorFlow and starts its devices without the notes they print.

    Args:
        deterministic: whether operators give the same bits each time, which some do only in a slower way.
    """
    with held_stderr():
        import tensorflow as tf

        if deterministic:
            tf.config.experimental.enable_op_determinism()
        tf.zeros([])

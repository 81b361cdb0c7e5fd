"""Ctrl-C and SIGTERM that wait for the end of the step, so that what is saved is a whole one."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class StopRequest:
    """Whether the user, or the system that runs the job, asked to stop."""

    requested: bool = False


@contextmanager
def stop_on_signal(*, patient: bool = False) -> Iterator[StopRequest]:
    """Turn the first Ctrl-C or SIGTERM into a request; a second one ends at once, as usual.

    With `patient`, later ones are the same request: one of several processes is told by the
    terminal and by what launched it.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():  # signals go to the main thread
        yield stop
        return

    def request(signum: int, frame: object) -> None:
        stop.requested = True
        if not patient:
            restore()

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    previous = {number: signal.signal(number, request) for number in SIGNALS}
    try:
        yield stop
    finally:
        restore()

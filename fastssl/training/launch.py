"""One command as several processes on this machine, without torchrun's report at the end."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence

from fastssl.training.signals import SIGNALS

GRACE = 30.0  # seconds that the others get to end by themselves after one has failed
POLL = 0.05  # seconds


def launched() -> bool:
    """Whether this process is one of several already, of `launch` or of torchrun."""
    return "WORLD_SIZE" in os.environ


def launch(command: Sequence[str], count: int) -> int:
    """Run a command as `count` processes that find each other; its exit code.

    Ctrl-C and SIGTERM are passed on, for them to save and end. When one fails, the others end by
    themselves or are ended. The exit code is the first process's if it failed, else that of the
    first other that did.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    environment = {
        "OMP_NUM_THREADS": str(max(1, (cores or 1) // count)),
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(count),
    }
    running: list[subprocess.Popen] = []

    def pass_on(signum: int, frame: object) -> None:
        for process in running:
            process.send_signal(signum)

    previous = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        for rank in range(count):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            running.append(subprocess.Popen(command, env=environment | place))
        _wait(running)
        codes = [
            process.poll() or 0 for process in running
        ]  # 0 for those that are still to be ended
    finally:
        for process in running:
            process.kill()
        for number, handler in previous.items():
            signal.signal(number, handler)
    for process in running:
        process.wait()
    # A process that a signal has ended counts as a shell would count it.
    return next((code if code > 0 else 128 - code for code in codes if code), 0)


def _wait(running: Sequence[subprocess.Popen]) -> None:
    """Wait for all to end; for those that outlive one that failed, no longer than GRACE."""
    deadline = None
    while any(process.poll() is None for process in running):
        if deadline is None and any(process.poll() for process in running):
            deadline = time.monotonic() + GRACE
        if deadline is not None and time.monotonic() > deadline:
            return
        time.sleep(POLL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

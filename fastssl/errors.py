"""The ways a run ends early for a reason its user can act on.

Anything else that is raised is a bug in fastssl and keeps its traceback.
"""

import difflib
from collections.abc import Iterable, Sequence

LISTED = 8  # names beyond which a message gives only the nearest


class InputError(ValueError):
    """Something the user gave is wrong: one line with what it was, what it got and expects.

    `details`, one a line, are what the message counts: all the files that cannot be read.
    """

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)


class DivergedError(RuntimeError):
    """The loss is no longer finite: one line with the step and the value of every term."""


class StoppedError(RuntimeError):
    """Ctrl-C or SIGTERM; the run was saved and can be resumed."""


class PeerError(RuntimeError):
    """Another of a run's processes has failed, and has said why."""


def unknown_name(argument: str, got: str, known: Iterable[str]) -> InputError:
    """InputError for a name that is not one of `known`: the nearest one, or all if none is near."""
    known = sorted(known)
    nearest = difflib.get_close_matches(got, known, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    listed = f"known: {', '.join(known)}" if len(known) <= LISTED or not nearest else ""
    return InputError(f"{argument}: unknown name {got!r}; {hint}{listed}".rstrip())

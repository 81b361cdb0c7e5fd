"""The lines of metrics.jsonl as TensorBoard's event files, for those who watch runs there."""

from pathlib import Path
from typing import Any

from fastssl.errors import InputError


def event_writer(folder: Path, *, after_step: int) -> Any:
    """A torch SummaryWriter that writes to a folder; later steps, from before a resume, are hidden.

    Args:
        folder: of the event files; it need not exist.
        after_step: the last step that stays.

    Raises:
        InputError: the package tensorboard is not installed, or the folder cannot be written.
    """
    writer = _writer()
    try:
        return writer(str(folder), purge_step=after_step + 1 if after_step else None)
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror or error}") from error


def require_tensorboard() -> None:
    """Refuse to go on where event files cannot be written.

    Raises:
        InputError: the package tensorboard is not installed.
    """
    _writer()


def _writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            "tensorboard: the package is not installed; get it with: "
            "pip install 'fastssl[tensorboard]', or train without --tensorboard"
        ) from error
    return SummaryWriter

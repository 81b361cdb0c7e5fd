"""What a run leaves on disk, and the rules for touching it.

run.json          the resolved configuration, versions, device: how to repeat the run
split.json        which training images carried their label
metrics.jsonl     one JSON object a line: step, seconds, lr, loss, term/*, accuracy/PART/NETWORK and
                  what else was measured, top5/PART/NETWORK or entropy/PART/NETWORK
checkpoints/      the last two and others, see checkpoint.py; what is known of a loss that is not
                  finite, see loss_watch.py
predictions.safetensors   for the test part, at the end of training, see predictions.py
outputs/          what the networks put out, for figures, see outputs.py
tensorboard/      the lines of metrics.jsonl as event files, with --tensorboard
curves.png        loss terms and accuracy over the steps
report.html       all of it on one page
"""

import json
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from fastssl.errors import InputError

FORMAT = 1
CHECKPOINT_FILE = re.compile(r"(step|diverged)-[0-9]{8,}\.(safetensors|json)")
OUTPUT_FILE = re.compile(r"(plane-\d{8,}|final)\.safetensors")
EVENT_FILE = re.compile(r"events\.out\.tfevents\..*")
TEMPORARY = ".writing"  # suffix of a file that is not complete yet


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that, whatever happens, its name holds all of the old or all of the new data.

    Raises:
        InputError: the file cannot be written (no permission, disk full).
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        try:
            with temporary.open("wb", buffering=0) as file:
                _write_all(file, data)
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)  # a full disk has no room for half a file
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name, too, is on disk
        finally:
            os.close(folder)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def _write_all(file: FileIO, data: bytes) -> None:
    """Write to a file without a buffer, which could only fail later, when it is closed."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run; `create` and `open` are the ways to get one."""

    path: Path

    @property
    def run_json(self) -> Path:
        return self.path / "run.json"

    @property
    def split_json(self) -> Path:
        return self.path / "split.json"

    @property
    def metrics_jsonl(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.safetensors"

    @property
    def outputs(self) -> Path:
        return self.path / "outputs"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def curves_png(self) -> Path:
        return self.path / "curves.png"

    @property
    def report_html(self) -> Path:
        return self.path / "report.html"

    @classmethod
    def create(cls, path: Path, *, overwrite: bool) -> "RunFolder":
        """A folder ready for a new run; files in it that no run wrote are left alone.

        Raises:
            InputError: `path` is a file, cannot be written, holds a run and `overwrite` is false,
                or holds files under a run's names that are not a run's.
        """
        folder = cls(path)
        if path.exists() and not path.is_dir():
            raise InputError(f"out: {path} is a file; expected a folder or a new name")
        if path.is_dir() and not os.access(path, os.W_OK | os.X_OK):
            raise InputError(f"out: {path} is not writable")
        if folder.run_json.exists():
            if not overwrite:
                raise InputError(
                    f"out: {path} already holds a run; "
                    "continue it with --resume or replace it with --overwrite"
                )
            folder.description()
            folder._clear()
        elif taken := [p.name for p in folder._files() if p.exists() and p.suffix != TEMPORARY]:
            raise InputError(f"out: {path} holds {taken[0]} but no run.json; choose another folder")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"out: cannot create {path}: {error.strerror or error}") from error
        return folder

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """The folder of an existing run.

        Raises:
            InputError: there is no run at `path`.
        """
        folder = cls(path)
        if not folder.run_json.is_file():
            reason = "it has no run.json" if path.is_dir() else "there is no such folder"
            raise InputError(f"{path} is not a run folder: {reason}")
        return folder

    def write_description(self, description: dict[str, Any]) -> None:
        """Write run.json, which makes the folder a run."""
        text = json.dumps({"format": FORMAT, **description}, indent=2)
        write_atomic(self.run_json, (text + "\n").encode())

    def description(self) -> dict[str, Any]:
        """Read run.json.

        Raises:
            InputError: it is not one that this version of fastssl wrote.
        """
        try:
            description = json.loads(self.run_json.read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"{self.run_json}: not readable as JSON") from error
        if not isinstance(description, dict) or description.get("format") != FORMAT:
            raise InputError(f"{self.run_json}: not a run description of format {FORMAT}")
        return description

    def _files(self) -> list[Path]:
        """Every path a run may have written, but for the folder itself."""
        files = [self.run_json, self.split_json, self.metrics_jsonl]
        files += [self.predictions, self.curves_png, self.report_html]
        for folder, name in self._folders():
            if folder.is_dir():
                files += [
                    path
                    for path in folder.iterdir()
                    if name.fullmatch(path.name.removesuffix(TEMPORARY))
                ]
        return files + [path.with_name(path.name + TEMPORARY) for path in files]

    def _folders(self) -> list[tuple[Path, re.Pattern[str]]]:
        """The folders a run may have made in its own, and what it names the files in them."""
        return [
            (self.checkpoints, CHECKPOINT_FILE),
            (self.outputs, OUTPUT_FILE),
            (self.tensorboard, EVENT_FILE),
        ]

    def _clear(self) -> None:
        """Delete what a run wrote, run.json last: until then the folder is known as a run."""
        try:
            for path in [*self._files()[1:], self.run_json]:
                path.unlink(missing_ok=True)
            for folder, _ in self._folders():
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
        except OSError as error:
            raise InputError(f"cannot overwrite {self.path}: {error.strerror or error}") from error


class MetricsLog:
    """metrics.jsonl while a run is training: appended line by line, each flushed at once."""

    def __init__(self, path: Path, *, after_step: int = 0, events: Any = None) -> None:
        """Continue after a step: later lines, which the resumed run writes anew, are cut.

        Args:
            path: of the file.
            after_step: the step.
            events: a SummaryWriter that gets the same values.
        """
        kept = [row for row in read_metrics(path) if row["step"] <= after_step]
        write_atomic(path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}") from error
        self._events = events
        self._started = time.monotonic() - (kept[-1]["seconds"] if kept else 0.0)

    def append(self, step: int, values: dict[str, float]) -> None:
        """Write one line; `seconds` of training are added, those before a resume included.

        Raises:
            InputError: the file cannot be written (disk full).
        """
        seconds = round(time.monotonic() - self._started, 3)
        row = {"step": step, "seconds": seconds, **values}
        try:
            _write_all(self._file, (json.dumps(row, allow_nan=False) + "\n").encode())
            if self._events is not None:
                for name, value in values.items():
                    self._events.add_scalar(name, value, step)
                self._events.flush()
        except OSError as error:
            raise InputError(f"cannot write {self._file.name}: {error.strerror}") from error

    def sync(self) -> None:
        """Force the lines to disk: a checkpoint must not be newer than what led to it.

        Raises:
            InputError: the disk does not take them.
        """
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise InputError(f"cannot write {self._file.name}: {error.strerror}") from error

    def close(self) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a metrics.jsonl; none if it is not there. A last line cut short does not count.

    Raises:
        InputError: another line is not a JSON object with a step and seconds.
    """
    try:
        lines = path.read_text(errors="replace").split("\n") if path.exists() else [""]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    rows = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = json.loads(line)
            row["step"] + row["seconds"]
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}: line {number} is not a record of a run") from error
        rows.append(row)
    return rows


def validation_accuracy(row: dict[str, float]) -> float | None:
    """What a row of metrics says of the validation part: of the network the paper evaluates."""
    accuracies = (v for key, v in row.items() if key.startswith("accuracy/validation/"))
    return next(accuracies, None)

"""The command `fastssl`: the list of its commands, and how they end when something is wrong."""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from fastssl.errors import DivergedError, InputError, PeerError

# Each is the function of that name in the module of that name, imported only when it is used.
COMMANDS = {
    "train": "Train a classifier from few labels.",
    "evaluate": "Test accuracy of a trained run.",
    "predict": "Classify images of your own with a trained run.",
    "propagate": "Labels for all rows of a table of features, from a few.",
    "data": "Data sets: list, inspect, split, preview.",
    "report": "One page about runs: curves, mistakes, calibration, settings.",
    "export": "A trained network as one file: pt2, onnx or safetensors.",
    "reproduce": "Train the runs behind a table of results, and write it.",
    "bench": "Time the compiled ops on this machine.",
    "doctor": "What is installed, what is missing, how to get it.",
}

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class OneLineError(click.ClickException):
    """An error the user can act on: one line on stderr and an exit code, never a traceback."""

    def __init__(self, message: str, exit_code: int, details: Sequence[str] = ()) -> None:
        super().__init__(" ".join(message.split()))
        self.exit_code = exit_code
        self.details = details

    def show(self, file: object = None) -> None:
        """Print it, below what it counts, without click's usage lines."""
        for detail in self.details:
            click.echo(f"  {' '.join(detail.split())}", err=True)
        click.echo(f"Error: {self.message}", err=True)


class CommandGroup(click.Group):
    """A group that imports a command when it runs, so that `fastssl --help` need not."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of COMMANDS."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the module of a command."""
        if name not in COMMANDS:
            return None
        return getattr(importlib.import_module(f"fastssl.cli.{name}"), name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from COMMANDS alone."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the group's own options."""
        with one_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Parse and run a command."""
        with one_line():
            return super().invoke(ctx)


@contextmanager
def one_line() -> Iterator[None]:
    """Turn what the user can act on into one line; a bug keeps its traceback."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        raise OneLineError(error.format_message(), error.exit_code) from error
    except InputError as error:
        raise OneLineError(str(error), 2, error.details) from error
    except DivergedError as error:
        raise OneLineError(str(error), 1) from error
    except PeerError as error:
        raise click.exceptions.Exit(2) from error
    except KeyboardInterrupt as error:
        raise OneLineError("interrupted", INTERRUPTED) from error


@click.group("fastssl", cls=CommandGroup)
@click.version_option(package_name="fastssl")
def main() -> None:
    """Train image classifiers from few labels.

    \b
    fastssl train muscle --labels 20     20 labeled digits, the rest unlabeled
    fastssl predict RUN photo.png        classify with the result
    """  # noqa: D301  (click's mark for lines it must not join)

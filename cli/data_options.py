"""Options about data that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


def _absolute(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """A path that still leads to the same place from another folder."""
    return None if value is None else str(Path(value).expanduser().absolute())


data_dir_option = click.option(
    "--data-dir",
    metavar="FOLDER",
    callback=_absolute,
    help="Root of the named data sets, and of what is cached of folders.  [default: $FASTSSL_DATA,"
    " else the user's cache]",
)


checkpoint_option = click.option(
    "--checkpoint",
    default="last",
    show_default=True,
    metavar="WHICH",
    help="Of the run: last, best (on its validation part), or a step.",
)


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How a data set is found and read: the same for every command that names one."""
    for option in (
        click.option(
            "--skip-bad", is_flag=True, help="Leave out images of a folder that cannot be read."
        ),
        click.option(
            "--image-size",
            type=int,
            metavar="S",
            help="Pixels that a folder's images are resized to, each side.  [default: by their size"
            " to train, else 64]",
        ),
        click.option("--download", is_flag=True, help="Fetch what is missing of a named data set."),
        data_dir_option,
    ):
        command = option(command)
    return command


holdout_option = click.option(
    "--holdout",
    type=float,
    metavar="PART",
    help="Part of the labeled images of each class to test on, where the data has no test part;"
    " 0 for none.  [default: 0.2]",
)

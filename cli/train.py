"""`fastssl train`: start or resume a run."""

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from fastssl.algorithms import BASES, composed_name
from fastssl.algorithms.ccn import VARIANTS
from fastssl.classifier import default_folder
from fastssl.cli.data_options import holdout_option, source_options
from fastssl.cli.main import INTERRUPTED, OneLineError
from fastssl.cli.pass_options import compile_option, pass_changes, precision_option
from fastssl.data.sources import resolve_source, short_name
from fastssl.errors import DivergedError, InputError, PeerError, StoppedError
from fastssl.recipes import RECIPES
from fastssl.recipes.experiment import configure
from fastssl.recipes.folder import choices
from fastssl.recipes.remarks import remarks
from fastssl.recipes.runs import Run, fit, start
from fastssl.recipes.runs import resume as resume_run
from fastssl.recipes.together import together
from fastssl.reporting.curves import draw_curves
from fastssl.reporting.page import write_report
from fastssl.reporting.results import results
from fastssl.training.distributed import first_alone, processes
from fastssl.training.launch import launch, launched
from fastssl.training.tensorboard import require_tensorboard

DEFAULT_DATA = "digits"


@click.command()
@click.argument("algorithm", metavar="ALGORITHM")
@click.option(
    "--base",
    metavar="NAME",
    help="What muscle adds its term to, or label-propagation its second stage: mean-teacher,"
    " fixmatch, contrastive, or none; `muscle --base X` is the algorithm muscle+X.  [default: none,"
    " the labeled images' cross entropy]",
)
@click.option(
    "--label-propagation",
    is_flag=True,
    help="Add a second stage, on labels propagated over a graph of all images, to muscle or its"
    " base: `muscle --label-propagation` is the algorithm muscle+label-propagation.",
)
@click.option(
    "--variant",
    type=click.Choice(["full", *VARIANTS]),
    help="Of ccn, as in the paper's table 3; `ccn --variant X` is the algorithm ccn-X."
    "  [default: full]",
)
@click.option(
    "--data",
    metavar="NAME|PATH",
    help=f"Data set: {', '.join(RECIPES)}; or a folder of images (one folder a class, and"
    " unlabeled/), or a CSV of file,label beside them.  [default: digits]",
)
@source_options
@holdout_option
@click.option(
    "--split",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A label split of `fastssl data split`, instead of drawing one.",
)
@click.option(
    "--labels",
    type=int,
    metavar="N",
    help="Images that keep their label, the same number of each class; the others are used without"
    " theirs.  [default: all]",
)
@click.option(
    "--validation",
    type=int,
    metavar="N",
    help="Training images to hold out. The run is then watched on them, and the test images are"
    " not touched before the end.  [default: 0]",
)
@click.option(
    "--seed", type=int, metavar="N", help="Of the labels, weights, order and views.  [default: 0]"
)
@click.option(
    "--init",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Start from the networks of a finished run, such as one of `train contrastive`.",
)
@click.option("--steps", type=int, metavar="N", help="Training steps.  [default: the recipe's]")
@click.option(
    "--device", metavar="NAME", help="cpu, cuda, cuda:1, ...  [default: cuda if usable, else cpu]"
)
@click.option(
    "--devices",
    type=click.IntRange(1),
    metavar="N",
    help="Train as N processes, each with its share of a step's rows and a GPU of its own, or its"
    " share of the CPU.  [default: 1; under torchrun, what it starts]",
)
@click.option(
    "--sync-bn", is_flag=True, help="Batch statistics of all processes' rows, between GPUs."
)
@precision_option
@compile_option
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change any value of the configuration, such as optim.lr=0.02 or"
    " views.hard.policy=rand_augment; may be repeated. run.json of a run lists them all.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where the run goes.  [default: runs/ALGORITHM-DATA-LABELS-SEED]",
)
@click.option(
    "--tensorboard", is_flag=True, help="Write event files, too: tensorboard --logdir RUN."
)
@click.option("--resume", is_flag=True, help="Continue the run in the folder.")
@click.option("--overwrite", is_flag=True, help="Replace the run in the folder.")
def train(
    algorithm: str,
    base: str | None,
    label_propagation: bool,
    variant: str | None,
    data: str | None,
    data_dir: str | None,
    download: bool,
    image_size: int | None,
    skip_bad: bool,
    holdout: float | None,
    split: Path | None,
    labels: int | None,
    validation: int | None,
    seed: int | None,
    init: Path | None,
    steps: int | None,
    device: str | None,
    devices: int | None,
    sync_bn: bool,
    precision: str | None,
    compiler: str | None,
    settings: tuple[str, ...],
    out: Path | None,
    tensorboard: bool,
    resume: bool,
    overwrite: bool,
) -> None:
    """Train a classifier with ALGORITHM.

    That is muscle, ccn, mean-teacher, fixmatch, label-propagation or supervised. All but
    supervised, the baseline, learn from labeled and unlabeled images together. muscle adds mutual
    information between views of an image to a base's objective; label-propagation adds a second
    stage on labels spread to all images; ccn trains two networks that teach each other; contrastive
    pre-trains without a label what --init then starts from, and is measured by the nearest labeled
    images. Ends with the test accuracy and the files of the run: run.json (how to repeat it),
    split.json (which images were labeled), metrics.jsonl, checkpoints/, predictions.safetensors
    (for the test images), curves.png and report.html, one page about all of it.

    \b
    fastssl train muscle --data digits --labels 20 --seed 0 --out runs/a
    fastssl train muscle --out runs/a --resume

    Ctrl-C, or SIGTERM, saves the run before it stops.
    """  # noqa: D301  (click's mark for lines it must not join)
    algorithm = full_name(algorithm, base, label_propagation, variant)
    options: dict[str, Any] = {
        "data.labels": labels,
        "data.validation": validation,
        "data.holdout": holdout,
        "data.split": split and str(split.absolute()),
        "data.data_dir": data_dir,
        "data.image_size": image_size,
        "data.skip_bad": skip_bad or None,
        "seed": seed,
        "init": init and str(init.expanduser().absolute()),
        "steps": steps,
        "device": device,
        "sync_bn": sync_bn or None,
    }
    changes = {key: value for key, value in options.items() if value is not None}
    changes |= pass_changes(precision, compiler) | parse_settings(settings)
    if tensorboard:
        require_tensorboard()
    if resume and overwrite:
        raise InputError("--resume and --overwrite exclude each other")
    chosen: list[str] = []
    if resume and out:
        path = out
    else:
        config = configure(algorithm, data or DEFAULT_DATA, changes)
        path = out or default_folder(config)
        if not resume:
            chosen = choices(config, changes)
    if resume and data:
        changes["data.source"] = resolve_source(data)
    if devices and devices > 1 and not launched():
        command = [sys.executable, "-m", "fastssl", *sys.argv[1:]]
        raise click.exceptions.Exit(launch(command, devices))
    with processes() as ranks:
        if devices and devices != ranks.count:
            raise InputError(f"--devices {devices}: torchrun has started {ranks.count}")

        def open_run() -> Run:
            if resume:
                return resume_run(path, algorithm, changes, ranks=ranks)
            return start(config, path, overwrite=overwrite, download=download, ranks=ranks)

        run = together(ranks, path, open_run)
        if ranks.rank == 0:
            introduce(run, chosen)
        try:
            fit(run, tensorboard=tensorboard)
        except (DivergedError, StoppedError) as error:
            if ranks.rank:
                raise PeerError from error  # the first process says it
            if isinstance(error, DivergedError):
                raise
            again = ["fastssl", "train", algorithm, "--out", str(path), "--resume"]
            again += ["--devices", str(devices)] if devices else []
            again += ["--tensorboard"] if tensorboard else []
            raise OneLineError(
                f"{error}, saved; continue with: {shlex.join(again)}", INTERRUPTED
            ) from error
        with first_alone(ranks) as first:
            if first:
                conclude(run)


def full_name(
    algorithm: str, base: str | None, label_propagation: bool, variant: str | None
) -> str:
    """The algorithm's name with what --base, --label-propagation and --variant add to it.

    Raises:
        InputError: the algorithm takes no such option.
    """
    if base is not None or label_propagation:
        muscle = algorithm == "muscle"
        propagation = label_propagation or algorithm == "label-propagation"
        if base is not None and not muscle and algorithm != "label-propagation":
            raise InputError(f"--base: {algorithm} takes none; expected muscle")
        if algorithm in BASES:
            base = algorithm
        elif algorithm not in ("muscle", "label-propagation"):
            raise InputError(f"--label-propagation: {algorithm} does not take it; expected muscle")
        base = "supervised" if base in (None, "none") else base
        return composed_name(base, muscle=muscle, propagation=propagation)
    if variant is not None:
        if algorithm != "ccn":
            raise InputError(f"--variant: {algorithm} has none; expected ccn")
        return algorithm if variant == "full" else f"ccn-{variant}"
    return algorithm


def conclude(run: Run) -> None:
    """Make the pictures, print the test accuracies and where everything is."""
    folder = run.folder
    draw_curves([folder], folder.curves_png)
    write_report([folder], folder.report_html)
    n = run.experiment.num_test
    for result in results(folder):
        if result.accuracy is not None:
            click.echo(f"test accuracy {100 * result.accuracy:.2f} %  ({result.network}, n = {n})")
    for path in (
        folder.split_json,
        folder.run_json,
        folder.metrics_jsonl,
        folder.checkpoints,
        folder.predictions,
        folder.curves_png,
    ):
        if path.exists():
            click.echo(f"  {path}{'/' if path.is_dir() else ''}")
    click.echo(f"report: {folder.report_html}")


def parse_settings(settings: tuple[str, ...]) -> dict[str, str]:
    """The `--set KEY=VALUE` options as a dict.

    Raises:
        InputError: one has no `=`.
    """
    changes = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"set: {setting!r}; expected KEY=VALUE")
        changes[key.strip()] = value.strip()
    return changes


def introduce(run: Run, chosen: list[str]) -> None:
    """Print what is about to be trained, what was chosen, and what is to be known of the data."""
    click.echo(introduction(run))
    for line in [*chosen, *remarks(run.experiment)]:
        click.echo(f"  {line}")


def introduction(run: Run) -> str:
    """One line on what is about to be trained."""
    config, split = run.experiment.config, run.experiment.split
    name = short_name(config.data.source)
    held_out = f", {len(split.validation)} held out" if split.validation else ""
    held_out += f", {len(split.test)} to test on" if split.test else ""
    count = run.experiment.algorithm.ranks.count
    processes = f" in {count} processes" if count > 1 else ""
    done = f" (resumed after step {run.first_step})" if run.first_step else ""
    return (
        f"{config.algorithm_name} on {name}: {len(split.labeled)} labeled "
        f"and {len(split.unlabeled)} unlabeled images{held_out}, {config.steps} steps on "
        f"{config.device}{processes}{done}, in {run.folder.path}"
    )

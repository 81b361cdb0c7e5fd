"""`fastssl export`: a trained network as one file for other programs."""

from pathlib import Path

import click

from fastssl.cli.data_options import checkpoint_option
from fastssl.errors import InputError
from fastssl.recipes.export import EXPORTS
from fastssl.recipes.export import export as export_network
from fastssl.recipes.trained import open_trained
from fastssl.training.record import write_atomic


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "kind",
    metavar="NAME",
    help=f"{', '.join(EXPORTS)}.  [default: by the ending of FILE]",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE")
@checkpoint_option
def export(run: Path, kind: str | None, out: Path, checkpoint: str) -> None:
    """Write the network that RUN trained to a FILE that needs neither the run nor its data.

    Whatever the format, it takes images as bytes, uint8 [N,K,H,W] for any N, of the size the
    network was trained on, and gives probabilities float32 [N,C]: normalisation and softmax are
    inside, and so are the names of the classes.

    \b
    pt2          torch.export.load("model.pt2").module()(images)
    onnx         any ONNX runtime; input "images", output "probabilities"
    safetensors  fastssl.recipes.export.load_classifier("model.safetensors")(images)
    """  # noqa: D301  (click's mark for lines it must not join)
    if out.is_dir() or not out.parent.is_dir():
        raise InputError(f"out: {out} is not a file name in an existing folder")
    if kind is None and (kind := out.suffix.removeprefix(".").lower()) not in EXPORTS:
        raise InputError(f"out: {out}; give --format, one of {', '.join(EXPORTS)}")
    trained = open_trained(run, "cpu", checkpoint=checkpoint)
    write_atomic(out, export_network(trained, kind))
    K, H, W = trained.shape
    click.echo(
        f"{kind} of step {trained.step}: images uint8 [N,{K},{H},{W}] to probabilities "
        f"float32 [N,{len(trained.class_names)}]; {out}"
    )

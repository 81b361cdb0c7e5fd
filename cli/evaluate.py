"""`fastssl evaluate`: test accuracy of a trained run."""

import json
from pathlib import Path

import click

from fastssl.cli.data_options import checkpoint_option, data_dir_option
from fastssl.cli.table import aligned
from fastssl.errors import InputError
from fastssl.recipes.experiment import load_trained


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
@checkpoint_option
@data_dir_option
def evaluate(run: Path, as_json: bool, checkpoint: str, data_dir: str | None) -> None:
    """Accuracy and error on the test images, for each network of RUN.

    RUN is the folder of a run.
    """
    experiment, step = load_trained(run, data_dir=data_dir, checkpoint=checkpoint)
    n = experiment.num_test
    found = experiment.test_evaluation()
    networks = {
        name: {"accuracy": accuracy, "error": 1 - accuracy, "n": n}
        for name, accuracy in found.accuracies.items()
    }
    if as_json:
        data = experiment.config.data.source
        place = {"run": str(run), "data": data, "part": "test", "step": step}
        click.echo(json.dumps({**place, "networks": networks, "counts": found.counts}))
        return
    if not networks:
        raise InputError(f"{run}: its data has no test images and none were held out")
    rows = [["network", "accuracy %", "error %", "n"]]
    for name, values in networks.items():
        percent = [f"{100 * values[key]:.2f}" for key in ("accuracy", "error")]
        rows.append([name, *percent, str(n)])
    click.echo(aligned(rows, right=(1, 2, 3)))
    for name, count in found.counts.items():
        click.echo(f"{name.replace('_', ' ')}: {count}")

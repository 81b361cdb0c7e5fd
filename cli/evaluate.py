"""`fastssl evaluate`: test accuracy of a trained run."""

import json
from pathlib import Path

import click

from fastssl.cli.table import aligned
from fastssl.recipes.experiment import load_trained


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def evaluate(run: Path, as_json: bool) -> None:
    """Accuracy and error on the test images, for each network of RUN.

    RUN is the folder of a run; its last checkpoint is used.
    """
    experiment, step = load_trained(run)
    n = len(experiment.source.test_labels)
    networks = {
        name: {"accuracy": accuracy, "error": 1 - accuracy, "n": n}
        for name, accuracy in experiment.test_accuracies().items()
    }
    if as_json:
        data = experiment.config.data.source
        result = {"run": str(run), "data": data, "part": "test", "step": step, "networks": networks}
        click.echo(json.dumps(result))
        return
    rows = [["network", "accuracy %", "error %", "n"]]
    for name, values in networks.items():
        percent = [f"{100 * values[key]:.2f}" for key in ("accuracy", "error")]
        rows.append([name, *percent, str(n)])
    click.echo(aligned(rows, right=(1, 2, 3)))

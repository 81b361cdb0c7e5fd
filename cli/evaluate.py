"""`fastssl evaluate`: test accuracy of a trained run."""

import json
from pathlib import Path

import click

from fastssl.cli.data_options import checkpoint_option, data_dir_option
from fastssl.cli.table import aligned
from fastssl.errors import InputError
from fastssl.recipes.trained import load_trained

OF_GROUP = "images_of_"  # what the count of a group's images begins with


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
        | {measure: values[name] for measure, values in found.measures.items()}
        for name, accuracy in found.accuracies.items()
    }
    if as_json:
        data = experiment.config.data.source
        place = {"run": str(run), "data": data, "part": "test", "step": step}
        click.echo(json.dumps({**place, "networks": networks, "counts": found.counts}))
        return
    if not networks:
        raise InputError(f"{run}: its data has no test images and none were held out")
    columns = {"accuracy": "accuracy %", "error": "error %"}
    columns |= {"top5": "top-5 %"} if "top5" in found.measures else {}
    rows = [["network", *columns.values(), "n"]]
    for name, values in networks.items():
        rows.append([name, *(f"{100 * values[key]:.2f}" for key in columns), str(n)])
    click.echo(aligned(rows, right=range(1, len(columns) + 2)))
    if "entropy" in found.measures:
        click.echo(aligned(subclass_rows(networks, found.counts), right=(2, 3, 4)))
    for name, count in found.counts.items():
        if not name.startswith(OF_GROUP):
            click.echo(f"{name.replace('_', ' ')}: {count}")


def subclass_rows(
    networks: dict[str, dict[str, float]], counts: dict[str, float]
) -> list[list[str]]:
    """Accuracy and mean prediction entropy of all images and of each group of subclasses."""
    rows = [["network", "images", "accuracy %", "entropy (nats)", "n"]]
    groups = {
        key.removeprefix(OF_GROUP): n for key, n in counts.items() if key.startswith(OF_GROUP)
    }
    for name, values in networks.items():
        for group, n in ({"": int(values["n"])} | groups).items():
            key = f"_{group}" if group else ""
            accuracy, entropy = values[f"accuracy{key}"], values[f"entropy{key}"]
            label = group.replace("_", " ") or "all"
            rows.append([name, label, f"{100 * accuracy:.2f}", f"{entropy:.4f}", str(n)])
    return rows

"""How a step's losses are computed: options that commands share."""

import click

precision_option = click.option(
    "--precision",
    metavar="NAME",
    help="fp32, or bf16: the losses in bfloat16 where autocast takes it.  [default: the recipe's]",
)
compile_option = click.option(
    "--compile",
    "compiler",
    metavar="NAME",
    help="How a step is run: none, one operation after the other; inductor, forward and backward by"
    " torch.compile; or graph, all of it from one CUDA graph.  [default: none]",
)


def pass_changes(precision: str | None, compiler: str | None) -> dict[str, str]:
    """What the two options change in a configuration."""
    given = {"precision": precision, "compile": compiler}
    return {key: value for key, value in given.items() if value is not None}

"""The commands, run in this process; one short run that the reading commands share."""

import pytest
from click.testing import CliRunner

from fastssl.cli.main import main


@pytest.fixture(scope="session")
def fastssl():
    """Run a command line; the result has exit_code, stdout, stderr."""

    def run(*arguments):
        return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=True)

    return run


@pytest.fixture(scope="session")
def refused(fastssl):
    """Run a command line that must fail: one line on stderr, exit code 2, no traceback."""

    def run(*arguments, code=2):
        result = fastssl(*arguments)
        assert result.exit_code == code, result.output
        assert isinstance(result.exception, SystemExit)
        assert result.stderr.count("\n") == 1
        assert result.stderr.startswith("Error: ")
        assert result.stdout == ""
        return result.stderr

    return run


@pytest.fixture(scope="session")
def trained(fastssl, tmp_path_factory):
    """A finished MUSCLE run; tests only read it."""
    path = tmp_path_factory.mktemp("runs") / "muscle"
    options = ("--labels", "20", "--steps", "40", "--device", "cpu")
    rows = ("--set", "data.labeled_rows=20", "--set", "data.unlabeled_rows=20")
    rows += ("--set", "muscle.ramp_epochs=0")  # 40 steps are not one epoch
    result = fastssl("train", "muscle", *options, *rows, "--out", path)
    assert result.exit_code == 0, result.output
    return path, result

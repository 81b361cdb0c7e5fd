"""The group: help without torch, errors in one line, bugs with their traceback."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

import fastssl.cli.train
from fastssl.cli.main import COMMANDS, main


def test_every_command_has_help(fastssl):
    listing = fastssl("--help").stdout
    for name, summary in COMMANDS.items():
        assert name in listing
        assert summary in listing
        assert fastssl(name, "--help").stdout.startswith(f"Usage: fastssl {name}")


def test_help_imports_no_command(tmp_path):
    code = (
        "import sys; from fastssl.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules if m.startswith(('fastssl.recipes', 'matplotlib'))])"
    )
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert output.stdout.splitlines()[-1] == "[]"


def test_unknown_commands_and_options(refused):
    assert "No such command 'trian'" in refused("trian")
    assert "--no-such" in refused("--no-such")
    assert "--no-such" in refused("evaluate", "--no-such")


def test_version(fastssl):
    assert fastssl("--version").stdout.startswith("fastssl, version ")


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (ZeroDivisionError, 1)])
def test_bugs_keep_their_traceback_and_ctrl_c_its_code(monkeypatch, error, code):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(fastssl.cli.train, "configure", fail)
    result = CliRunner().invoke(main, ["train", "muscle"])
    assert result.exit_code == code
    expected = SystemExit if error is KeyboardInterrupt else error
    assert isinstance(result.exception, expected)

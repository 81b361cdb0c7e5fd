"""A few of the kills that `kill_runs.py` makes by the dozen."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kill_runs.py")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks its runs")
def test_a_killed_run_ends_as_one_never_stopped():
    command = [sys.executable, SCRIPT, "--kills", "3", "--steps", "5", "muscle", "fixmatch", "ccn"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kills, 0 runs differ" in done.stdout

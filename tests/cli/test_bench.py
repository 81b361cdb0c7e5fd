"""`fastssl bench`: rows appended, a table on the terminal, a picture of the rows."""

import numpy as np
import pytest
import torch
from PIL import Image

from fastssl.benchmarks import harness, picture, rows


@pytest.fixture
def _small_machine(monkeypatch):
    """Times nothing large: a small machine."""
    x = torch.ones(8, 8)
    limits = [
        (harness.Implementation("copy of 256 bytes", x.clone().copy_, [x]), harness.Work(512, 0)),
        (harness.Implementation("product of two 8 x 8", torch.matmul, [x, x]), harness.Work(0, 1)),
    ]
    monkeypatch.setattr(harness, "machine_limits", lambda device, dtype: limits)


@pytest.mark.usefixtures("_small_machine")
def test_rows_table_and_picture(fastssl, tmp_path):
    out = tmp_path / "rows.csv"
    command = ("bench", "joint_distribution", "--no-compile", "--rounds", "3", "--out", out)
    command += ("--case", "6x4", "--dtype", "bfloat16")
    threads = torch.get_num_threads()
    try:
        result = fastssl(*command)
    finally:
        torch.set_num_threads(threads)
    assert result.exit_code == 0, result.output
    title = "joint_distribution (6, 4), bfloat16, wall time"
    for expected in (title, "forward", "backward", "both", "GB/s"):
        assert expected in result.stdout
    found = rows.read(out)
    assert {row.mode for row in found if row.op == "joint_distribution"} == set(harness.MODES)
    names = {row.implementation for row in found if row.op == "joint_distribution"}
    assert {"fastssl", "eager", harness.EMPTY_CALL} <= names
    assert len({row.date for row in found}) == 1

    assert fastssl("bench", "--plot", "--out", out).stdout == f"plot: {tmp_path / 'rows.png'}\n"
    pixels = np.asarray(Image.open(tmp_path / "rows.png").convert("L"))
    assert pixels.shape[1] > 1000
    assert (pixels < 128).sum() > 2000  # marks and letters, not an empty canvas


def test_committed_rows_can_be_drawn(tmp_path):
    for path in rows.RESULTS.glob("*.csv"):
        picture.draw(rows.read(path), tmp_path / "picture.png")
        assert (tmp_path / "picture.png").stat().st_size > 0


def test_bad_input(refused, tmp_path):
    assert "expected one of" in refused("bench", "no_such_op")
    assert "device" in refused("bench", "entropy", "--device", "tpu")
    message = refused("bench", "diffuse", "--dtype", "bfloat16")
    assert "--dtype is bfloat16; diffuse expects float32, float64" in message
    for case in ("8", "8x", "8x0", "8xa", "1x2x3"):
        message = refused("bench", "entropy", "--case", case)
        assert "entropy expects a shape such as 512x10" in message
    assert "there are no rows" in refused("bench", "--plot", "--out", tmp_path / "absent.csv")

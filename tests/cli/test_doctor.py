"""`fastssl doctor`: what is there, what is not, and what to do about it."""

import torch

import fastssl as package
from fastssl.cli.doctor import missing


def test_it_names_versions_devices_and_the_build(fastssl):
    result = fastssl("doctor")
    assert result.exit_code == 0, result.output
    for word in (torch.__version__, "cpu", package.build_info()["compiler"], "missing"):
        assert word in result.stdout


def test_missing_extras_are_named_with_the_way_to_get_them(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    notes = "\n".join(missing(package.build_info()))
    assert "pip install 'fastssl[onnx]'" in notes
    assert "pip install 'fastssl[tensorboard]'" in notes


def test_a_build_without_cuda_is_told_how_to_get_it():
    build = package.build_info()
    assert any("nvcc" in note for note in missing(build | {"cuda": ""}))
    assert not any("nvcc" in note for note in missing(build | {"cuda": "13.0"}))

"""`fastssl export`: other programs get the probabilities that `fastssl predict` gets."""

import json
import shutil

import pytest
import torch

from fastssl.algorithms import ALGORITHMS, named
from fastssl.cli.main import COMMANDS
from fastssl.models import build_model
from fastssl.recipes.export import EXPORTS, export, load_classifier
from fastssl.recipes.trained import Trained, open_trained

CLOSE = 1e-5


@pytest.fixture(scope="module")
def alone(trained, tmp_path_factory):
    """The finished run in another place, and its probabilities."""
    path = tmp_path_factory.mktemp("alone") / "run"
    shutil.copytree(trained[0], path)
    images = torch.randint(256, (5, 1, 8, 8), dtype=torch.uint8)
    return path, images, open_trained(path).probabilities([images])


def test_pt2_takes_bytes_and_any_number_of_images(fastssl, alone, tmp_path):
    path, images, expected = alone
    result = fastssl("export", path, "--out", tmp_path / "model.pt2")
    assert result.exit_code == 0, result.output
    assert "uint8 [N,1,8,8]" in result.stdout
    names = {"class_names.json": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=names).module()
    for n in (1, 2, 5):
        assert (program(images[:n]) - expected[:n]).abs().max() < CLOSE
    assert json.loads(names["class_names.json"]) == [str(digit) for digit in range(10)]


def test_safetensors_rebuilds_the_network(fastssl, alone, tmp_path):
    path, images, expected = alone
    file = tmp_path / "weights"
    assert fastssl("export", path, "--format", "safetensors", "--out", file).exit_code == 0
    classifier = load_classifier(file)
    assert (classifier(images) - expected).abs().max() < CLOSE
    assert classifier.class_names == tuple(str(digit) for digit in range(10))


def test_onnx_gives_the_same_where_it_is_installed(fastssl, alone, tmp_path):
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    onnxruntime = pytest.importorskip("onnxruntime")
    path, images, expected = alone
    result = fastssl("export", path, "--out", tmp_path / "model.onnx")
    assert result.exit_code == 0, result.output
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for n in (1, 2, 5):
        (found,) = session.run(["probabilities"], {"images": images[:n].numpy()})
        assert abs(found - expected[:n].numpy()).max() < CLOSE
    names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
    assert names == [str(digit) for digit in range(10)]


@pytest.mark.parametrize("name", ["muscle+mean-teacher", "fixmatch", "ccn"])
@pytest.mark.parametrize("kind", ["pt2", "safetensors"])
def test_the_network_the_paper_evaluates_is_exported(kind, name, tmp_path):
    """Of an algorithm with several networks, of the large one with normalised weights."""
    trained = untrained(name)
    images = torch.randint(256, (3, *trained.shape), dtype=torch.uint8)
    expected = trained.probabilities([images])
    file = tmp_path / "model"
    file.write_bytes(export(trained, kind))
    load = load_classifier if kind == "safetensors" else open_program
    assert (load(file)(images) - expected).abs().max() < CLOSE


def open_program(path):
    with path.open("rb") as file:
        return torch.export.load(file).module()


def untrained(name: str) -> Trained:
    """An algorithm whose networks all differ, with batch statistics of its own."""
    from fastssl.recipes.experiment import build_algorithm, configure

    options = {"model.name": "conv_large", "model.weight_norm": True, "device": "cpu"}
    config = configure(name, "cifar10" if name != "ccn" else "digits", options)
    algorithm = build_algorithm(config, (3, 16, 16), 4, 20)
    with torch.no_grad():
        for tensor in algorithm.state_dict().values():
            if tensor.is_floating_point():
                tensor.mul_(1 + 0.1 * torch.rand_like(tensor)).add_(0.01)
    statistics = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.25])
    return Trained(
        config, algorithm.eval(), 0, (3, 16, 16), tuple("abcd"), *statistics, torch.device("cpu")
    )


@pytest.mark.parametrize("name", ALGORITHMS)
def test_evaluated_is_the_first_of_the_predictors(name):
    known = named(name)
    algorithm = known.kind(build_model("small_cnn", 1, 3), known.config, known.muscle, 4).eval()
    with torch.no_grad():
        for parameter in algorithm.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(algorithm.evaluated(images)[0], algorithm.predict(images))


def test_bad_input(refused, alone, tmp_path, monkeypatch):
    path, _, _ = alone
    out = tmp_path / "model"
    assert "give --format" in refused("export", path, "--out", out)
    assert "did you mean 'onnx'" in refused("export", path, "--out", out, "--format", "onx")
    assert "is not a run folder" in refused("export", tmp_path, "--out", tmp_path / "m.pt2")
    assert "existing folder" in refused("export", path, "--out", tmp_path / "no" / "m.pt2")
    (tmp_path / "m").write_bytes(b"{")
    with pytest.raises(ValueError, match="not a network that fastssl exported"):
        load_classifier(tmp_path / "m")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = refused("export", path, "--out", tmp_path / "m.onnx")
    assert "pip install 'fastssl[onnx]'" in message
    assert list(tmp_path.iterdir()) == [tmp_path / "m"]
    assert set(EXPORTS) == {"pt2", "onnx", "safetensors"}
    assert "export" in COMMANDS

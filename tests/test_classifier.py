"""The Python face: a module of one's own on a folder of one's own, in ten lines."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import fastssl
from fastssl.algorithms import ALGORITHMS, Algorithm, Loss, register
from fastssl.errors import InputError
from fastssl.objectives.entropy import entropy
from fastssl.objectives.supervised import supervised
from fastssl.recipes import export, trained

SHORT = {
    "settings": {"data.image_size": 16, "data.labeled_rows": 20, "data.unlabeled_rows": 20},
    "device": "cpu",
}


class MyNet(nn.Module):
    """As in anybody's project."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.conv2, self.norm2 = nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32)
        self.fc = nn.Linear(32 * 4 * 4, 1000)

    def forward(self, x):
        x = self.norm1(self.conv1(x)).relu()
        x = self.norm2(self.conv2(x)).relu()
        return self.fc(nn.functional.adaptive_max_pool2d(x, 4).flatten(1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Stripes, columns and dots: what no flip, shift, crop or colour makes another of."""
    root, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    y, x = np.mgrid[:24, :24] // 3 % 2
    patterns = {"stripes": y, "columns": x, "dots": x & y}

    def save(part, name, count):
        for number in range(count):
            colours = generator.integers([[0], [156]], [[100], [256]], (2, 3))
            image = colours[patterns[name]] + generator.normal(0, 10, (24, 24, 3))
            file = root / part / f"{name}-{number:02d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(file)

    for name in patterns:
        for part, count in ((name, 12), ("unlabeled", 30), (f"test/{name}", 20)):
            save(part, name, count)
    return root


@pytest.fixture(scope="module")
def my_module():
    torch.manual_seed(0)
    return MyNet()


@pytest.fixture(scope="module")
def classifier(folder, my_module, tmp_path_factory):
    return fastssl.fit(
        "muscle+mean-teacher",
        data=folder,
        network=my_module,
        steps=20,
        data_dir=tmp_path_factory.mktemp("cache"),
        out=tmp_path_factory.mktemp("runs") / "mine",
        **SHORT,
    )


def test_a_module_of_ones_own_learns_a_folder(classifier, folder):
    assert list(classifier.accuracies) == ["teacher", "student"]
    assert min(classifier.accuracies.values()) > 0.5  # guessing: 1/3
    assert classifier.class_names == ("columns", "dots", "stripes")
    predictions = classifier.predict(folder / "dots")
    assert [p.image for p in predictions] == sorted(str(p) for p in (folder / "dots").iterdir())
    assert all(p.class_name in classifier.class_names for p in predictions)
    assert all(1 / 3 <= p.confidence <= 1 for p in predictions)
    (single,) = classifier.predict([str(folder / "dots" / "dots-00.png")])
    assert single[:2] == predictions[0][:2]
    assert single.confidence == pytest.approx(predictions[0].confidence, abs=1e-5)
    names = {path.name for path in classifier.folder.iterdir()}
    assert {"run.json", "split.json", "metrics.jsonl", "checkpoints"} <= names
    assert {"curves.png", "report.html", "predictions.safetensors"} <= names


def test_the_evaluated_network_and_the_module_again(classifier, my_module):
    experiment = classifier.experiment
    experiment.algorithm.eval()
    assert classifier.network is experiment.algorithm.teacher.network
    images = experiment.inputs(experiment.source.images[:8])
    with torch.no_grad():
        logits = classifier.network(images)[0]
        torch.testing.assert_close(logits, experiment.algorithm.predict(images))
        module = classifier.network.to_module()
        assert type(module) is MyNet
        torch.testing.assert_close(module(images), logits)
    assert my_module.fc.out_features == 1000  # what was given stays as it was


def test_a_run_is_opened_with_its_module(classifier):
    again = fastssl.load(classifier.folder, network=MyNet())
    assert again.accuracies == classifier.accuracies
    assert again.step == 20
    images = again.experiment.source.images[:8]
    assert torch.equal(again.logits(images), classifier.logits(images))

    for network, message in (
        (None, "from Python, with a MyNet as `network`"),
        (nn.Flatten(), "trains a MyNet, not a Flatten"),
    ):
        with pytest.raises(InputError, match=message):
            fastssl.load(classifier.folder, network=network)


def test_it_predicts_where_its_data_are_gone(classifier, folder, monkeypatch):
    images = sorted((folder / "dots").iterdir())
    expected = classifier.predict(images)

    def gone(config):
        raise InputError("data: it is not there")

    monkeypatch.setattr(trained, "read_source", gone)
    again = fastssl.load(classifier.folder, network=MyNet())
    assert again.predict(images) == expected
    with pytest.raises(InputError, match="it is not there"):
        _ = again.accuracies


def test_a_module_of_ones_own_is_exported(classifier, folder, tmp_path):
    file = tmp_path / "mine.safetensors"
    file.write_bytes(export.export(classifier.trained, "safetensors"))
    images = classifier.experiment.source.images[:8]
    found = export.load_classifier(file, network=MyNet())(images)
    torch.testing.assert_close(found, classifier.logits(images).softmax(1))
    with pytest.raises(InputError, match="with a MyNet as `network`"):
        export.load_classifier(file)


def test_files_that_cannot_be_read_are_all_named(classifier, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"not an image")
    with pytest.raises(InputError, match="2 of 2 files cannot be read") as error:
        classifier.predict(tmp_path)
    assert [detail.split()[0] for detail in error.value.details] == [
        str(tmp_path / name) for name in ("a.png", "b.png")
    ]


def test_resuming_needs_the_module_and_is_the_run_that_was_started(folder, classifier, tmp_path):
    place = classifier.experiment.config.data.data_dir
    common = {"data": folder, "out": tmp_path / "a", "data_dir": place, **SHORT}
    fastssl.fit("muscle", network=MyNet(), steps=2, **common)
    with pytest.raises(InputError, match="the run has steps = 2, not 3"):
        fastssl.fit("muscle", network=MyNet(), steps=3, resume=True, **common)
    with pytest.raises(InputError, match="with a MyNet as `network`"):
        fastssl.fit("muscle", steps=2, resume=True, **common)
    with pytest.raises(InputError, match="already holds a run"):
        fastssl.fit("muscle", network=MyNet(), steps=2, **common)
    assert fastssl.fit("muscle", network=MyNet(), steps=2, resume=True, **common).step == 2


def test_one_run_starts_from_another(folder, classifier, tmp_path):
    tuned = fastssl.fit(
        "muscle",
        data=folder,
        network=MyNet(),
        init=classifier.folder,
        steps=1,
        out=tmp_path / "tuned",
        data_dir=classifier.experiment.config.data.data_dir,
        **SHORT | {"settings": SHORT["settings"] | {"optim.lr": 1e-30}},
    )
    for ours, theirs in zip(
        tuned.experiment.algorithm.network.parameters(),
        classifier.experiment.algorithm.network.parameters(),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.fixture
def confident():
    """An algorithm of one's own, in ten lines."""

    class Confident(Algorithm):
        def objective(self, logits, batch):  # [V,B,C]: the weak view and the labeled rows first
            l_s = supervised(logits[0, : len(batch.labels)], batch.labels)
            l_h = entropy(logits[0])
            return Loss(l_s + l_h, {"supervised": l_s.detach(), "entropy": l_h.detach()})

    register("confident", Confident)
    yield Confident
    for name in ("confident", "muscle+confident"):
        del ALGORITHMS[name]


def test_an_algorithm_of_ones_own_takes_muscle_s_term(confident, tmp_path):
    rows = {"data.labeled_rows": 20, "data.unlabeled_rows": 20}
    for name, terms in (("confident", 2), ("muscle+confident", 3)):
        found = fastssl.fit(
            name, labels=20, steps=3, device="cpu", settings=rows, out=tmp_path / name
        )
        assert type(found.experiment.algorithm) is confident
        (_, last) = (tmp_path / name / "metrics.jsonl").read_text().rsplit("{", 1)
        assert last.count('"term/') == terms
        assert fastssl.load(tmp_path / name).accuracies == found.accuracies
    register("confident", confident)  # again, as in a notebook
    for taken in ("supervised", "muscle+confident"):
        with pytest.raises(InputError, match="is taken"):
            register(taken, confident)


def test_importing_fastssl_brings_none_of_it():
    code = (
        "import sys, fastssl; heavy = {'sklearn', 'matplotlib', 'scipy', 'fastssl.recipes'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules);"
        "assert callable(fastssl.fit) and callable(fastssl.load);"
        "assert 'fastssl.recipes' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'Trainer'"):
        _ = fastssl.Trainer

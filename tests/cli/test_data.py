"""`fastssl data`, and training on data that is not the digits."""

import json
import shutil

import numpy as np
import pytest
from image_trees import BROKEN, digits_tree, save
from PIL import Image

from fastssl.data.sources import SOURCES
from fastssl.recipes.trained import load_trained

STEPS = ("--steps", "4", "--device", "cpu", "--image-size", "8", "--skip-bad")
ROWS = ("--set", "data.labeled_rows=10", "--set", "data.unlabeled_rows=10")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return digits_tree(tmp_path_factory.mktemp("trees") / "photos").root


@pytest.fixture(autouse=True)
def _data_root(tmp_path_factory, monkeypatch):
    """One cache for all tests here, and no data set of this machine's user."""
    root = tmp_path_factory.getbasetemp() / "data-root"
    monkeypatch.setenv("FASTSSL_DATA", str(root))


def test_list_names_every_source(fastssl):
    lines = fastssl("data", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(SOURCES)


def test_info_counts_what_is_there(fastssl, tree):
    facts = json.loads(
        fastssl("data", "info", tree, "--image-size", "8", "--skip-bad", "--json").stdout
    )
    assert (facts["training"], facts["unlabeled"], facts["test"]) == (200, 60, 0)
    assert facts["by_class"]["training"]["7"] == 14
    assert sorted(line.split(":")[0] for line in facts["skipped"]) == sorted(BROKEN)
    table = fastssl("data", "info", "digits").stdout
    assert "5a9e37053a6cb139" in table
    assert [line.split() for line in table.splitlines()][-1] == ["all", "1437", "360"]


def test_a_split_is_drawn_used_and_refused_elsewhere(fastssl, refused, tmp_path):
    out = tmp_path / "split.json"
    options = ("--labels", "55", "--rule", "imbalanced", "--ratio", "10", "--seed", "3")
    result = fastssl("data", "split", "digits", *options, "--validation", "50", "--out", out)
    assert result.exit_code == 0
    header, first, *_, last, total, _ = (line.split() for line in result.stdout.splitlines())
    assert header == ["class", "labeled", "unlabeled", "validation"]
    assert int(first[1]) > 5 * int(last[1])
    assert total == ["all", "55", str(1437 - 105), "50"]
    assert "is there already" in refused("data", "split", "digits", "--out", out)

    run = tmp_path / "run"
    steps = ("--steps", "2", "--device", "cpu", *ROWS)
    assert fastssl("train", "muscle", "--split", out, *steps, "--out", run).exit_code == 0
    assert (run / "split.json").read_text() == out.read_text()
    assert "made for other data" in refused(
        "train", "muscle", "--data", tree_of(tmp_path), "--split", out, *steps, "--out", "unused"
    )
    for option in (("--labels", "20"), ("--validation", "10"), ("--holdout", "0.1")):
        message = refused("train", "muscle", "--split", out, *option, "--out", tmp_path / "b")
        assert "says it all; leave out data." in message
    absent = refused("train", "muscle", "--split", tmp_path / "absent", "--out", tmp_path / "b")
    assert "cannot be read" in absent


def tree_of(root):
    """Two classes of three one-coloured images."""
    for number, name in enumerate(("a/1", "a/2", "a/3", "b/1", "b/2", "b/3")):
        save(root / "plain" / f"{name}.png", np.full((8, 8), 40 * number, np.uint8), "L")
    return root / "plain"


def test_positions_come_from_a_file(fastssl, refused, tmp_path):
    chosen = tmp_path / "labeled.txt"
    chosen.write_text("[5, 0, 3]\n")
    out = tmp_path / "split.json"
    command = ("data", "split", tree_of(tmp_path), "--holdout", "0", "--out", out)
    assert fastssl(*command, "--labeled", chosen).exit_code == 0
    assert json.loads(out.read_text())["labeled"] == [0, 3, 5]
    chosen.write_text("0 1 2")
    message = refused(*command, "--overwrite", "--labeled", chosen)
    assert "class 'b' has no labeled image" in message
    chosen.write_text("0 1 x")
    assert "not a list of whole numbers" in refused(*command, "--overwrite", "--labeled", chosen)
    assert "excludes" in refused(*command, "--overwrite", "--labeled", chosen, "--labels", "2")


def test_a_folder_trains_evaluates_and_predicts(fastssl, tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tree.parent)
    run = tmp_path / "run"
    result = fastssl("train", "muscle", "--data", "./photos", *STEPS, *ROWS, "--out", run)
    assert result.exit_code == 0, result.output
    assert "110 labeled and 60 unlabeled images, 30 to test on" in result.stdout
    assert all(name in result.stdout for name in BROKEN)
    assert "test accuracy" in result.stdout
    split = json.loads((run / "split.json").read_text())
    assert len(split["test"]) == 30

    monkeypatch.chdir("/")  # run.json knows where the folder is, and its size
    evaluated = json.loads(fastssl("evaluate", run, "--json").stdout)
    assert evaluated["networks"]["network"]["n"] == 30
    experiment, _ = load_trained(run)
    position = experiment.source.files.names.index("4/03.png")
    rows = json.loads(fastssl("predict", run, tree / "4/03.png", "--json").stdout)
    logits = experiment.algorithm.eval().predict(
        experiment.inputs(experiment.source.images[[position]])
    )
    assert rows[0]["confidence"] == pytest.approx(logits.softmax(1).max().item(), abs=1e-5)
    assert rows[0]["class"] == str(logits.argmax().item())


def test_resuming_a_folder_is_the_uninterrupted_run(fastssl, tree, tmp_path):
    options = ("--data", tree, *STEPS, *ROWS, "--set", "checkpoint.every=2")
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    for run in (straight, stopped):
        assert fastssl("train", "muscle", *options, "--out", run).exit_code == 0
    for suffix in ("json", "safetensors"):
        (stopped / f"checkpoints/step-00000004.{suffix}").unlink()
    resumed = fastssl("train", "muscle", "--data", tree, "--out", stopped, "--resume")
    assert resumed.exit_code == 0, resumed.output
    name = "checkpoints/step-00000004.safetensors"
    assert (stopped / name).read_bytes() == (straight / name).read_bytes()


def test_broken_images_stop_training_with_all_of_them_listed(fastssl, tree, tmp_path):
    result = fastssl(
        "train", "muscle", "--data", tree, "--image-size", "8", "--out", tmp_path / "r"
    )
    assert result.exit_code == 2
    *listed, last = result.stderr.splitlines()
    assert sorted(line.strip().split(":")[0] for line in listed) == sorted(BROKEN)
    assert last.startswith("Error: image: 3 of 203 files cannot be read")
    assert not (tmp_path / "r").exists()


def test_duplicates_of_test_images_are_reported(fastssl, tmp_path):
    root = tree_of(tmp_path)
    (root / "test/a").mkdir(parents=True)
    shutil.copy(root / "a/2.png", root / "test/a/same.png")
    result = fastssl("train", "supervised", "--data", root, *STEPS, "--out", tmp_path / "run")
    assert "1 test images are in the training part too: test/a/same.png = a/2.png" in result.stdout
    assert "duplicates   test/a/same.png = a/2.png" in fastssl("data", "info", root).stdout


def test_without_test_images_there_is_no_figure_and_it_says_so(fastssl, refused, tmp_path):
    root = tree_of(tmp_path)
    for name in ("2", "3"):
        (root / f"b/{name}.png").unlink()
    run = tmp_path / "run"
    result = fastssl("train", "supervised", "--data", root, *STEPS, "--out", run)
    assert result.exit_code == 0, result.output
    assert "no test figure" in result.stdout
    assert "test accuracy" not in result.stdout
    assert "no test images" in refused("evaluate", run)
    assert fastssl("report", run).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "info", "mnits"], "did you mean 'mnist'"),
        (["data", "info", "mnist"], "mnist is not in"),
        (["data", "split", "digits", "--rule", "equal"], "rule: unknown name 'equal'"),
        (["data", "split", "digits", "--rule", "sequestered"], "digits has no subclasses"),
        (["data", "split", "digits", "--holdout", "0.2"], "has a test part of its own"),
        (["train", "muscle", "--data", "two_spirals"], "no recipe for muscle on two_spirals yet"),
        (["train", "muscle", "--labels", "20", "--holdout", "0.2"], "test part of its own"),
        (["train", "muscle", "--image-size", "16"], "digits has its own"),
        (
            ["data", "preview", "digits", "--policy", "hard", "--out", "x.png"],
            "unknown name 'hard'",
        ),
        (
            ["data", "preview", "digits", "--algorithm", "mussel", "--out", "x.png"],
            "did you mean 'muscle'",
        ),
        (["data", "preview", "two_spirals", "--out", "x.png"], "has points, not images"),
        (["data", "preview", "digits", "--out", "."], "is not a file name"),
    ],
)
def test_bad_input_is_one_line(refused, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(*arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("policy", [None, "rand_augment", "iic_hard", "digits"])
def test_preview_draws_the_image_then_its_views(fastssl, tmp_path, policy):
    out = tmp_path / "views.png"
    options = ("--images", "3", "--views", "2", "--out", out)
    options += ("--policy", policy) if policy else ()
    result = fastssl("data", "preview", "digits", *options)
    assert result.exit_code == 0, result.output
    pixels = np.asarray(Image.open(out))
    assert pixels.shape == (3 * 68 + 4, 5 * 68 + 12, 3)  # 8 pixels are drawn 64 wide, 4 apart
    first = fastssl("data", "preview", "digits", *options)
    assert first.exit_code == 0
    assert np.array_equal(np.asarray(Image.open(out)), pixels)
    cells = [pixels[4:68, left : left + 64] for left in (4, 76, 144, 216, 284)]
    assert len({cell.tobytes() for cell in cells[3:]}) == 2  # two hard views differ
    assert all(cell.max() > 0 for cell in cells)

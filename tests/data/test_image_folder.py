"""A folder of 200 real images with every kind of trouble in it, and a CSV beside a tree."""

import shutil

import numpy as np
import pytest
import torch
from image_trees import BROKEN, LABELED, digits_tree, enlarged, save
from PIL import Image

from fastssl.data.batches import TwoStreams
from fastssl.data.files import read_image
from fastssl.data.sources import UNKNOWN, image_cache, load_source
from fastssl.data.sources.image_folder import duplicates
from fastssl.data.sources.source import mean_and_std, moments
from fastssl.data.splits import draw_split
from fastssl.errors import InputError
from fastssl.ops.policies import NoAugment

SIZE = 8


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return digits_tree(tmp_path_factory.mktemp("trees") / "photos")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def source(tree, cache):
    return read(tree.root, cache)


def read(path, cache, **options):
    return load_source(
        str(path), data_dir=cache, **{"image_size": SIZE, "skip_bad": True} | options
    )


@pytest.fixture
def few(tmp_path):
    """Two classes of three images and one without a label; made anew, so that it may be changed."""
    root = tmp_path / "few"
    digits = load_source("digits").images[:, 0].numpy()
    names = ["a/1.png", "a/2.png", "a/3.png", "b/1.png", "b/2.png", "b/3.png", "unlabeled/1.png"]
    for name, image in zip(names, digits, strict=False):
        save(root / name, image, "RGB")
    return root


def test_class_folders_keep_their_names_and_the_rest_is_unlabeled(source):
    assert source.name == "photos"
    assert source.class_names == tuple("0123456789")
    counts = torch.bincount(source.labels[source.labels != UNKNOWN])
    assert counts.tolist() == [LABELED] * 10
    assert len(source.images) == 200
    assert (source.labels == UNKNOWN).sum() == 60
    assert len(source.test_labels) == 0
    for name, label in zip(source.files.names, source.labels.tolist(), strict=True):
        assert name.split("/")[0] == ("unlabeled" if label == UNKNOWN else str(label))


def test_every_file_becomes_rgb_of_one_size(tree, source):
    assert source.images.shape == (200, 3, SIZE, SIZE)
    assert source.images.dtype == torch.uint8
    row = dict(zip(source.files.names, source.images, strict=True))
    for number, (name, pixels) in enumerate(tree.pixels.items()):
        if name == "turned":
            name, image = "unlabeled/turned.png", np.rot90(enlarged(pixels, 2), -1)
        else:
            image = enlarged(pixels, 1 + number % 4)
        shrunk = Image.fromarray(image.copy()).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        assert torch.equal(row[name], torch.from_numpy(np.array(shrunk)).expand(3, SIZE, SIZE))
    assert len(row["unlabeled/1x1.png"].unique()) == 1
    # The shorter side decides: of an image twice as wide the middle is kept.
    middle = np.asarray(Image.open(tree.root / "unlabeled/wide.gif").convert("RGB"))[:, 4:12]
    assert torch.equal(row["unlabeled/wide.gif"], torch.from_numpy(middle.copy()).permute(2, 0, 1))


def test_broken_images_are_all_listed_with_one_decision(tree, cache):
    with pytest.raises(InputError, match=r"3 of 203 files cannot be read.*--skip-bad") as error:
        read(tree.root, cache, skip_bad=False)
    assert sorted(line.split(":")[0] for line in error.value.details) == sorted(BROKEN)
    assert "decompression bomb" in next(x for x in error.value.details if "bomb.png" in x)
    skipped = read(tree.root, cache).files.skipped
    assert list(skipped) == list(error.value.details)


def test_images_are_kept_once_and_mapped(tree, cache, source, monkeypatch):
    monkeypatch.setattr(image_cache, "read_image", lambda *_: pytest.fail("decoded again"))
    again = read(tree.root, cache)
    assert torch.equal(again.images, source.images)
    assert again.fingerprint == source.fingerprint
    (folder,) = {p.parent for p in (cache / "images").glob("*/pixels")}
    assert (folder / "pixels").stat().st_size == 200 * 3 * SIZE * SIZE
    # A private map of that file: a change of the tensor does not reach it.
    before = (folder / "pixels").read_bytes()
    again.images[0] = 7
    assert (folder / "pixels").read_bytes() == before


def test_the_cache_follows_content_not_names_or_places(few, tmp_path):
    cache = tmp_path / "cache"
    first = read(few, cache)
    moved = tmp_path / "elsewhere" / "few"
    shutil.copytree(few, moved)
    assert read(moved, cache).fingerprint == first.fingerprint
    assert len(list((cache / "images").glob("*/pixels"))) == 1
    save(moved / "a/1.png", np.full((8, 8), 200, dtype=np.uint8), "RGB")
    changed = read(moved, cache)
    assert changed.fingerprint != first.fingerprint
    assert changed.images[0].unique().tolist() == [200]
    other_size = read(few, cache, image_size=16)
    assert other_size.images.shape[1:] == (3, 16, 16)
    assert other_size.fingerprint != first.fingerprint


def test_statistics_are_those_of_the_pixels(source):
    expected = mean_and_std(moments(source.images), source.shape)
    assert torch.equal(source.mean, expected[0])
    assert torch.equal(source.std, expected[1])
    pixels = source.images.double() / 255
    torch.testing.assert_close(source.mean.double(), pixels.mean((0, 2, 3)), rtol=1e-6, atol=0)
    torch.testing.assert_close(
        source.std.double(), pixels.std((0, 2, 3), correction=0), rtol=1e-6, atol=0
    )


def test_a_channel_without_contrast_is_not_divided_by_zero():
    black = torch.zeros(4, 3, 2, 2, dtype=torch.uint8)
    mean, std = mean_and_std(moments(black), black.shape[1:])
    assert (mean.tolist(), std.tolist()) == ([0.0] * 3, [1.0] * 3)


def test_a_test_folder_is_the_test_part(few, tmp_path):
    for label in "ab":
        save(few / "test" / label / "1.png", np.full((8, 8), ord(label), dtype=np.uint8), "L")
    found = read(few, tmp_path / "cache")
    assert (len(found.labels), found.test_labels.tolist()) == (7, [0, 1])
    assert found.test_images[:, 0, 0, 0].tolist() == [ord("a"), ord("b")]
    assert draw_split(found, num_labels=None, seed=0).test == ()
    save(few / "test/c/1.png", np.zeros((8, 8), dtype=np.uint8), "L")
    with pytest.raises(InputError, match="class 'c', which has no labeled training image"):
        read(few, tmp_path / "cache")


def test_the_holdout_is_stratified_seeded_and_recorded(source):
    split = draw_split(source, num_labels=None, seed=0)
    assert torch.bincount(source.labels[list(split.test)]).tolist() == [3] * 10  # 0.2 of 14
    assert split == draw_split(source, num_labels=None, seed=0)
    assert split.test != draw_split(source, num_labels=None, seed=1).test
    assert f'"test": {list(split.test)}' in split.to_json()


def test_duplicates_across_train_and_test_are_found(few, tmp_path):
    shutil.copy(few / "a/1.png", few / "unlabeled/copy.png")
    found = read(few, tmp_path / "cache")
    names = found.files.names
    held_out, rest = [names.index("a/1.png")], [i for i, n in enumerate(names) if n != "a/1.png"]
    assert duplicates(found, held_out, rest) == [("a/1.png", "unlabeled/copy.png")]
    assert duplicates(found, [names.index("b/1.png")], [0, 1, 2]) == []
    (few / "test/b").mkdir(parents=True)
    shutil.copy(few / "b/2.png", few / "test/b/other_name.png")
    found = read(few, tmp_path / "cache")
    everything = list(range(len(found.labels)))
    assert duplicates(found, [], everything) == [("test/b/other_name.png", "b/2.png")]


def test_batches_are_gathered_from_the_map(source):
    split = draw_split(source, num_labels=None, seed=0)
    options = {"labeled_rows": 10, "unlabeled_rows": 10, "seed": 0, "device": torch.device("cpu")}
    mapped = TwoStreams(source, split, [NoAugment()], resident=False, **options)
    held = TwoStreams(source, split, [NoAugment()], resident=True, **options)
    for step in range(3):
        for one, other in zip(mapped.at(step), held.at(step), strict=True):
            assert torch.equal(one, other)


def test_predict_prepares_an_image_as_training_did(tree, source):
    for name in ("0/01.png", "unlabeled/turned.png", "unlabeled/wide.gif", "unlabeled/rgba.png"):
        row = source.files.names.index(name)
        assert torch.equal(read_image(tree.root / name, source.shape), source.images[row])


def write_csv(root, *rows, header="file,label"):
    (root / "labels.csv").write_text("\n".join([header, *rows]) + "\n")
    return root


ROWS = ("a/1.png,cat", "a/2.png,cat", "b/1.png,dog", "b/2.png,", "unlabeled/1.png,")


def test_a_csv_labels_a_tree(few, tmp_path):
    write_csv(few, *ROWS, "")
    for path in (few, few / "labels.csv"):
        found = read(path, tmp_path / "cache")
        assert found.name == "few"
        assert found.class_names == ("cat", "dog")
        assert found.labels.tolist() == [0, 0, 1, UNKNOWN, UNKNOWN]
        assert found.files.names == ("a/1.png", "a/2.png", "b/1.png", "b/2.png", "unlabeled/1.png")
    save(few / "test/x.png", np.zeros((8, 8), dtype=np.uint8), "L")
    found = read(write_csv(few, *ROWS, "test/x.png,dog"), tmp_path / "cache")
    assert (len(found.labels), found.test_labels.tolist()) == (5, [1])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("../few/a/1.png,cat",), None),  # leaves the tree and comes back
        (("../outside.png,cat",), r"line 7: '../outside.png' is not inside"),
        (("/etc/hostname,cat",), "'/etc/hostname' is not inside"),
        (("link.png,cat",), "'link.png' is not inside"),
        (("a/9.png,cat",), "there is no file 'a/9.png'"),
        (("a/1.png,dog",), "'a/1.png' is listed twice"),
        (("a/3.png",), "1 columns; expected file,label"),
        (('"a/3.png,cat',), "cannot be read as a CSV"),
    ],
)
def test_a_csv_stays_inside_its_tree_and_makes_sense(few, tmp_path, rows, message):
    save(tmp_path / "outside.png", np.zeros((8, 8), dtype=np.uint8), "L")
    (few / "link.png").symlink_to(tmp_path / "outside.png")
    write_csv(few, *ROWS, *rows)
    if message is None:
        assert len(read(few, tmp_path / "cache").labels) == 6
        return
    with pytest.raises(InputError, match=message):
        read(few, tmp_path / "cache")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "c").mkdir(), "class 'c' has no labeled image"),
        (lambda root: shutil.rmtree(root / "b"), "has 1 class folders; expected at least two"),
        (lambda root: write_csv(root, header="name,class"), "expected file,label"),
        (lambda root: write_csv(root, "a/1.png,cat"), "labels of 1 classes"),
        (lambda root: spoil(root / "b"), "class 'b' has no labeled image that can be read"),
        (lambda root: spoil(root), "none of 7 files can be read"),
    ],
)
def test_a_folder_that_cannot_be_learnt_from_is_refused(few, tmp_path, change, message):
    change(few)
    with pytest.raises(InputError, match=message):
        read(few, tmp_path / "cache")


def spoil(folder):
    for path in folder.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:40])


def test_a_damaged_cache_says_which_folder_to_delete(few, tmp_path):
    read(few, tmp_path / "cache")
    (pixels,) = (tmp_path / "cache/images").glob("*/pixels")
    pixels.write_bytes(pixels.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"is damaged .*; delete it"):
        read(few, tmp_path / "cache")


def test_hidden_files_and_other_kinds_are_no_images(few, tmp_path):
    (few / "a/notes.txt").write_text("mine")
    (few / "a/.hidden.png").write_bytes(b"")
    assert len(read(few, tmp_path / "cache").labels) == 7


def test_large_photographs_are_no_bombs(few, tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # up to 200 Pillow only warns
    save(few / "a/large.png", enlarged(np.full((6, 6), 9, np.uint8), 2), "L")
    save(few / "a/larger.png", enlarged(np.full((8, 8), 9, np.uint8), 2), "L")
    found = read(few, tmp_path / "cache")
    assert "a/large.png" in found.files.names
    assert [line.split(":")[0] for line in found.files.skipped] == ["a/larger.png"]
    assert not recwarn

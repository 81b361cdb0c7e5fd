"""Every named data set from small files in its real format, read by the code that reads the real.

Only the table of expected MD5s is replaced. Files that are damaged, or do more than hold data, are
refused in one line.
"""

import dataclasses
import gzip
import hashlib
import http.server
import io
import os
import pickle
import struct
import tarfile
import threading
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from fastssl.data.sources import cifar, load_source, mini_imagenet, mnist, svhn
from fastssl.data.sources.published import Archive
from fastssl.data.splits import draw_split
from fastssl.errors import InputError

PIXELS = np.random.default_rng(0).integers(256, size=(40, 3, 32, 32), dtype=np.uint8)
FINE = [i % 20 for i in range(40)]  # 20 fine classes under 4 coarse ones


def expect(monkeypatch, module, name, root, origin=None):
    """Replace a module's table by the MD5s of the files that are below `root`."""
    table = getattr(module, name)
    md5 = {path: hashlib.md5((root / path).read_bytes()).hexdigest() for path in table.md5}
    replaced = dataclasses.replace(table, md5=md5, origin=origin or table.origin)
    monkeypatch.setattr(module, name, replaced)
    return replaced


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_cifar10(root, labels=None):
    """Batches of eight, as Python 2 pickled them (protocol 2)."""
    folder = root / "cifar-10-batches-py"
    labels = [i % 10 for i in range(40)] if labels is None else labels
    for number in range(5):
        rows = slice(8 * number, 8 * number + 8)
        batch = {"data": PIXELS[rows].reshape(-1, 3072), "labels": labels[rows]}
        write(folder / f"data_batch_{number + 1}", pickle.dumps(batch, protocol=2))
    test = {"data": PIXELS[:4].reshape(-1, 3072), "labels": [0, 1, 2, 3]}
    write(folder / "test_batch", pickle.dumps(test, protocol=2))
    names = {"label_names": [f"class {c}" for c in range(10)]}
    write(folder / "batches.meta", pickle.dumps(names, protocol=2))


def write_cifar100(root):
    folder = root / "cifar-100-python"
    batch = {
        "data": PIXELS.reshape(-1, 3072),
        "fine_labels": FINE,
        "coarse_labels": [fine // 5 for fine in FINE],
    }
    for part in ("train", "test"):
        write(folder / part, pickle.dumps(batch, protocol=2))
    names = {
        "fine_label_names": [f"fine {c}" for c in range(20)],
        "coarse_label_names": [f"coarse {c}" for c in range(4)],
    }
    write(folder / "meta", pickle.dumps(names, protocol=2))


def idx(array):
    return gzip.compress(
        struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
    )


def write_mnist(root, labels=range(10)):
    for part in ("train", "t10k"):
        folder = root / "MNIST/raw"
        write(folder / f"{part}-images-idx3-ubyte.gz", idx(PIXELS[:10, 0, :28, :28].copy()))
        write(folder / f"{part}-labels-idx1-ubyte.gz", idx(np.array(labels, dtype=np.uint8)))


def write_svhn(root):
    from scipy.io import savemat

    for part in ("train", "test"):
        file = io.BytesIO()
        labels = np.arange(1, 11, dtype=np.uint8).reshape(-1, 1)  # ten is the digit 0
        savemat(file, {"X": PIXELS[:10].transpose(2, 3, 1, 0), "y": labels})
        write(root / f"SVHN/{part}_32x32.mat", file.getvalue())


def test_cifar10(tmp_path, monkeypatch):
    write_cifar10(tmp_path)
    expect(monkeypatch, cifar, "CIFAR10", tmp_path)
    source = load_source("cifar10", data_dir=tmp_path)
    assert torch.equal(source.images, torch.from_numpy(PIXELS))
    assert torch.equal(source.test_images, torch.from_numpy(PIXELS[:4]))
    assert source.labels.tolist() == [i % 10 for i in range(40)]
    assert source.test_labels.tolist() == [0, 1, 2, 3]
    assert source.class_names[3] == "class 3"


def test_cifar100_and_its_superclasses(tmp_path, monkeypatch):
    write_cifar100(tmp_path)
    expect(monkeypatch, cifar, "CIFAR100", tmp_path)
    fine = load_source("cifar100", data_dir=tmp_path)
    assert (fine.labels.tolist(), fine.num_classes) == (FINE, 20)
    coarse = load_source("cifar20", data_dir=tmp_path)
    assert (coarse.labels.tolist(), coarse.num_classes) == ([c // 5 for c in FINE], 4)
    assert coarse.subclasses.labels.tolist() == coarse.subclasses.test_labels.tolist() == FINE
    assert coarse.subclasses.names[7] == "fine 7"
    split = draw_split(coarse, num_labels=16, rule="sequestered", seed=0)
    assert len(split.sequestered) == 4
    assert not set(torch.tensor(FINE)[list(split.labeled)].tolist()) & set(split.sequestered)


def test_mnist(tmp_path, monkeypatch):
    write_mnist(tmp_path)
    expect(monkeypatch, mnist, "MNIST", tmp_path)
    source = load_source("mnist", data_dir=tmp_path)
    assert torch.equal(source.images, torch.from_numpy(PIXELS[:10, :1, :28, :28]))
    assert source.labels.tolist() == source.test_labels.tolist() == list(range(10))


def test_svhn(tmp_path, monkeypatch):
    write_svhn(tmp_path)
    expect(monkeypatch, svhn, "SVHN", tmp_path)
    source = load_source("svhn", data_dir=tmp_path)
    assert torch.equal(source.images, torch.from_numpy(PIXELS[:10]))
    assert source.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]


@pytest.fixture
def small_mini_imagenet(monkeypatch):
    protocol = mini_imagenet.Protocol(classes=4, each=6, test=2)
    monkeypatch.setattr(mini_imagenet, "PROTOCOL", protocol)


def jpeg(number):
    file = io.BytesIO()
    Image.fromarray(PIXELS[number].transpose(1, 2, 0)).resize((84, 84)).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.usefixtures("small_mini_imagenet")
def test_mini_imagenet_from_folders_or_lists_is_the_same(tmp_path):
    by_folder, by_list = tmp_path / "folders", tmp_path / "lists"
    lists = {"train": "filename,label\n", "val": "filename,label\n", "test": "filename,label\n"}
    for number in range(24):
        label, name = f"n{number // 6}", f"n{number // 6}{number:05d}.jpg"
        write(by_folder / "mini-imagenet" / label / name, jpeg(number))
        write(by_list / "mini-imagenet/images" / name, jpeg(number))
        lists[("train", "train", "val", "test")[number // 6]] += f"{name},{label}\n"
    for part, text in lists.items():
        (by_list / "mini-imagenet" / f"{part}.csv").write_text(text)
    sources = [load_source("mini_imagenet", data_dir=root) for root in (by_folder, by_list)]
    for source in sources:
        assert source.images.shape == (16, 3, 84, 84)
        assert torch.bincount(source.labels).tolist() == [4] * 4
        assert torch.bincount(source.test_labels).tolist() == [2] * 4
        assert source.class_names == ("n0", "n1", "n2", "n3")
    assert torch.equal(sources[0].images, sources[1].images)
    assert sources[0].fingerprint == sources[1].fingerprint
    (by_folder / "mini-imagenet/n1/n100006.jpg").unlink()
    with pytest.raises(InputError, match=r"class n1 .* has 5 images; expected 6"):
        load_source("mini_imagenet", data_dir=by_folder)


class Malicious:
    """Pickles to a call of os.system."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_that_calls_is_refused_and_does_not_call(tmp_path, monkeypatch, protocol):
    write_cifar10(tmp_path)
    trace = tmp_path / "it-ran"
    batch = {
        "x": Malicious(f"touch {trace}"),
        "data": PIXELS[:8].reshape(-1, 3072),
        "labels": [0] * 8,
    }
    content = pickle.dumps(batch, protocol=protocol)
    pickle.loads(content)
    assert trace.exists()  # so the file does what it is made for
    trace.unlink()
    write(tmp_path / "cifar-10-batches-py/data_batch_2", content)
    expect(monkeypatch, cifar, "CIFAR10", tmp_path)
    with pytest.raises(InputError, match=r"data_batch_2 is refused: it names (os|posix)\.system"):
        load_source("cifar10", data_dir=tmp_path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([print], dtype=object), r"names (__builtin__|builtins)\.print"),
        (np.float64(1.0), "names numpy._core.multiarray.scalar"),
        ({"data": PIXELS[:8].astype(np.int16).reshape(-1, 3072), "labels": [0] * 8}, "is no batch"),
        ({"data": PIXELS[:8].reshape(-1, 3072), "labels": ["0"] * 8}, "is no batch"),
        ({"data": PIXELS[:8].reshape(-1, 3072)}, "is no batch"),
        ([1, 2], "holds list; expected a dictionary"),
    ],
)
def test_a_pickle_of_something_else_is_refused(value, message):
    with pytest.raises(InputError, match=message):
        cifar.batch(pickle.dumps(value, protocol=2), "data_batch_1", "labels")


def damage(path, change):
    path.write_bytes(change(path.read_bytes()))


WRITERS = {
    "cifar10": (write_cifar10, cifar, "CIFAR10"),
    "cifar20": (write_cifar100, cifar, "CIFAR100"),
    "mnist": (write_mnist, mnist, "MNIST"),
    "svhn": (write_svhn, svhn, "SVHN"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_is_not_the_published_one_is_refused(tmp_path, monkeypatch, name):
    writer, module, table = WRITERS[name]
    writer(tmp_path)
    path = tmp_path / next(iter(expect(monkeypatch, module, table, tmp_path).md5))
    damage(path, lambda content: content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match=rf"{path.name} is not the published file of .*MD5"):
        load_source(name, data_dir=tmp_path)
    path.unlink()
    with pytest.raises(InputError, match=r"is missing.*--download.*--data-dir"):
        load_source(name, data_dir=tmp_path)


@pytest.mark.parametrize("name", WRITERS)
def test_a_truncated_file_is_refused_without_an_md5_too(tmp_path, monkeypatch, name):
    writer, module, table = WRITERS[name]
    writer(tmp_path)
    damage(
        tmp_path / next(iter(getattr(module, table).md5)),
        lambda content: content[: 2 * len(content) // 3],
    )
    expect(monkeypatch, module, table, tmp_path)
    with pytest.raises(InputError, match=r"is refused|not a whole idx|cannot be read") as error:
        load_source(name, data_dir=tmp_path)
    assert "\n" not in str(error.value)


def test_an_idx_file_with_too_few_elements_is_refused():
    content = gzip.compress(gzip.decompress(idx(PIXELS[:2, 0]))[:-5])
    with pytest.raises(InputError, match=r"truncated: 2043 bytes for 2 x 32 x 32"):
        mnist.idx(content, "train-images", 3)


def test_a_label_out_of_range_is_refused(tmp_path, monkeypatch):
    write_mnist(tmp_path, labels=[0, 1, 2, 3, 4, 5, 6, 7, 8, 10])
    expect(monkeypatch, mnist, "MNIST", tmp_path)
    with pytest.raises(InputError, match="training image 9 has label 10; expected 0 to 9"):
        load_source("mnist", data_dir=tmp_path)
    write_cifar10(tmp_path, labels=[-1] + [0] * 39)
    expect(monkeypatch, cifar, "CIFAR10", tmp_path)
    with pytest.raises(InputError, match="class 'class 1' has no labeled image"):
        draw_split(load_source("cifar10", data_dir=tmp_path), num_labels=None, seed=0)


def test_nothing_touches_the_network_unless_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket", lambda *_: pytest.fail("a connection"))
    for name in WRITERS:
        with pytest.raises(InputError, match="--download"):
            load_source(name, data_dir=tmp_path)


@pytest.fixture
def server(tmp_path):
    """Serves tmp_path/served; gives the address that a name is added to."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    (tmp_path / "served").mkdir()
    handler = partial(Quiet, directory=tmp_path / "served")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_address[1]}/"
        serving.shutdown()
        thread.join()


def test_a_download_fetches_what_is_missing(tmp_path, monkeypatch, server):
    write_mnist(tmp_path / "original")
    table = expect(monkeypatch, mnist, "MNIST", tmp_path / "original", origin=server)
    for path in table.md5:
        content = (tmp_path / "original" / path).read_bytes()
        write(tmp_path / "served" / path.rsplit("/", 1)[1], content)
    root = tmp_path / "data"
    fetched = load_source("mnist", data_dir=root, download=True)
    assert fetched.fingerprint == load_source("mnist", data_dir=tmp_path / "original").fingerprint
    assert sorted(p.name for p in (root / "MNIST/raw").iterdir()) == sorted(
        path.rsplit("/", 1)[1] for path in table.md5
    )


def test_a_download_of_something_else_is_not_kept(tmp_path, monkeypatch, server):
    write_mnist(tmp_path / "original")
    table = expect(monkeypatch, mnist, "MNIST", tmp_path / "original", origin=server)
    first = next(iter(table.md5)).rsplit("/", 1)[1]
    with pytest.raises(InputError, match=f"cannot download {server}{first}: .*404"):
        load_source("mnist", data_dir=tmp_path / "data", download=True)
    write(tmp_path / "served" / first, b"something else")
    with pytest.raises(InputError, match=r"gave another file .*nothing was kept"):
        load_source("mnist", data_dir=tmp_path / "data", download=True)
    assert not [p for p in (tmp_path / "data").rglob("*") if p.is_file()]


def test_of_an_archive_only_the_named_files_are_taken(tmp_path, monkeypatch, server):
    original = tmp_path / "original"
    write_cifar10(original)
    archive = tmp_path / "served/cifar-10-python.tar.gz"
    (original / "evil").write_text("outside")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(original / "cifar-10-batches-py", "cifar-10-batches-py")
        tar.add(original / "evil", "../evil")
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    origin = Archive(server + archive.name, md5)
    expect(monkeypatch, cifar, "CIFAR10", original, origin=origin)
    root = tmp_path / "data"
    load_source("cifar10", data_dir=root, download=True)
    assert [p.name for p in root.iterdir()] == ["cifar-10-batches-py"]
    assert not (tmp_path / "evil").exists()


def test_the_published_tables_are_whole():
    # MD5s as torchvision's loaders and the data sets' own pages give them.
    for table, count in ((cifar.CIFAR10, 7), (cifar.CIFAR100, 3), (mnist.MNIST, 4), (svhn.SVHN, 2)):
        assert len(table.md5) == len(set(table.md5.values())) == count
        assert all(len(bytes.fromhex(md5)) == 16 for md5 in table.md5.values())


def test_the_root_is_given_or_of_the_environment_or_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FASTSSL_DATA", raising=False)
    with pytest.raises(InputError, match=f"mnist is not in {tmp_path}/cache/fastssl "):
        load_source("mnist")
    monkeypatch.setenv("FASTSSL_DATA", str(tmp_path / "mine"))
    with pytest.raises(InputError, match=f"mnist is not in {tmp_path}/mine "):
        load_source("mnist")
    with pytest.raises(InputError, match=f"mnist is not in {tmp_path}/given "):
        load_source("mnist", data_dir=tmp_path / "given")


def test_two_spirals_are_two_arms_in_the_unit_disc():
    source = load_source("two_spirals")
    assert source.images.shape == source.test_images.shape == (2000, 2)
    assert torch.bincount(source.labels).tolist() == [1000, 1000]
    assert source.images.norm(dim=1).max() < 1.15
    # Turned by half a turn, each arm lies on the other: nearest points are of the other class.
    nearest = torch.cdist(-source.images, source.test_images).argmin(1)
    other = source.test_labels[nearest] != source.labels
    assert other.double().mean() > 0.98
    assert not torch.equal(source.images, source.test_images)
    # Recorded once: figures are comparable only while the points stay.
    assert source.fingerprint.startswith("4a38b5c03c1baa3b")


def test_a_name_wins_over_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert len(load_source("digits").images) == 1437
    with pytest.raises(InputError, match="has 0 class folders"):
        load_source("./digits")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnits", "did you mean 'mnist'"),
        ("./nothing", "there is no folder ./nothing"),
        (__file__, "is a file; expected a folder of images or a .csv"),
    ],
)
def test_unknown_data_is_refused(name, message):
    with pytest.raises(InputError, match=message):
        load_source(name)
    with pytest.raises(InputError, match="image_size: digits has its own"):
        load_source("digits", image_size=32)

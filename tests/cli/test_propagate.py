"""`fastssl propagate`: from files of features and labels to a CSV, for people and for machines."""

import csv
import json

import numpy as np
import pytest
import torch

from fastssl.ops import propagate_labels


@pytest.fixture(scope="module")
def clusters():
    """Features [90, 6] and labels: three of each of three classes, the rest -1."""
    random = np.random.default_rng(0)
    classes = np.arange(90) % 3
    features = random.normal(size=(3, 6))[classes] + 0.3 * random.normal(size=(90, 6))
    return features.astype(np.float32), np.where(np.arange(90) < 9, classes, -1)


@pytest.fixture
def npz(tmp_path, clusters):
    path = tmp_path / "features.npz"
    np.savez(path, features=clusters[0], labels=clusters[1])
    return path


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def check(path, clusters, names=("0", "1", "2"), **options):
    """The rows are what the op gives."""
    features, labels = (torch.from_numpy(x) for x in clusters)
    expected = propagate_labels(features, labels, **options)
    rows = rows_of(path)
    assert [row["index"] for row in rows] == [str(i) for i in range(len(labels))]
    assert [row["label"] for row in rows] == [names[c] for c in expected.labels]
    weights = torch.tensor([float(row["weight"]) for row in rows])
    torch.testing.assert_close(weights, expected.weights, rtol=0, atol=1e-6)
    confidences = [float(row["confidence"]) for row in rows]
    assert all(1 / len(names) <= c <= 1 for c in confidences)


def test_an_npz(fastssl, npz, clusters, tmp_path):
    out = tmp_path / "labels.csv"
    options = ("--k", "8", "--exponent", "2", "--alpha", "0.9", "--iterations", "15")
    result = fastssl("propagate", npz, *options, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    check(out, clusters, k=8, exponent=2.0, alpha=0.9, max_iterations=15)
    summary = json.loads(result.stdout)
    assert (summary["rows"], summary["classes"], summary["known"]) == (90, 3, 9)
    assert 1 <= summary["iterations"] <= 15
    assert list(summary["seconds"]) == ["read", "graph", "diffusion", "write"]
    assert summary["peak_memory_bytes"] > 90 * 6 * 4
    assert result.stderr == ""
    assert [path.name for path in tmp_path.iterdir() if path != npz] == ["labels.csv"]


@pytest.mark.parametrize("is_indexed", [False, True])
def test_an_npy_beside_a_csv_of_names(fastssl, clusters, tmp_path, is_indexed):
    names = ["cat", "dog, or wolf", "fox"]
    features, labels = clusters
    np.save(tmp_path / "features.npy", features)
    with (tmp_path / "known.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "label"] if is_indexed else ["label", "file"])
        for index, label in enumerate(labels):
            name = names[label] if label >= 0 else ""
            if not is_indexed:
                writer.writerow([name, "a.png"])
            elif name:
                writer.writerow([index, name])
    out = tmp_path / "labels.csv"
    given = tmp_path / "features.npy", "--labels", tmp_path / "known.csv"
    result = fastssl("propagate", *given, "--k", "8", "--out", out)
    assert result.exit_code == 0, result.output
    check(out, clusters, names, k=8)


def test_strings_and_the_order_of_numbers(fastssl, clusters, tmp_path):
    features, labels = clusters
    for kind in (str, np.int16):
        given = np.array([2, 10, 100])[labels]
        np.savez(
            tmp_path / "f.npz",
            features=features,
            labels=np.where(labels < 0, -1, given).astype(kind),
        )
        out = tmp_path / "labels.csv"
        assert fastssl("propagate", tmp_path / "f.npz", "--k", "8", "--out", out).exit_code == 0
        check(out, clusters, ("2", "10", "100"), k=8)


def test_rows_that_no_label_reaches_have_none(fastssl, tmp_path):
    features = np.repeat(np.eye(3, dtype=np.int64), [5, 5, 1], axis=0)
    labels = np.array([0, 1] + [-1] * 9)
    np.savez(tmp_path / "f.npz", features=features, labels=labels)
    out = tmp_path / "labels.csv"
    result = fastssl("propagate", tmp_path / "f.npz", "--k", "3", "--out", out)
    assert "unreached     6" in result.stdout
    rows = rows_of(out)
    assert [(r["label"], float(r["confidence"]), float(r["weight"])) for r in rows[5:]] == [
        ("", 0, 0)
    ] * 6
    assert all(row["label"] in ("0", "1") for row in rows[:5])


def test_the_summary_is_for_people(fastssl, npz, tmp_path):
    result = fastssl("propagate", npz, "--k", "8", "--out", tmp_path / "labels.csv")
    words = [line.split("  ")[0] for line in result.stdout.splitlines()]
    assert words == [
        "rows", "known labels", "unreached", "edges", "iterations", "seconds", "peak memory",
        "written",
    ]  # fmt: skip
    assert "MiB" in result.stdout


def test_bad_features(refused, npz, clusters, tmp_path):
    features, labels = clusters
    out = "--out", tmp_path / "labels.csv"
    path = tmp_path / "f.npz"

    def given(**arrays):
        np.savez(path, **arrays)
        return refused("propagate", path, "--k", "8", *out)

    assert "there is no such file" in refused("propagate", tmp_path / "absent.npz", *out)
    assert "no .npy or .npz" in refused("propagate", tmp_path, *out)
    assert "--k is 90; expected less than the 90 rows" in refused("propagate", npz, "--k", 90, *out)
    assert "no array 'labels'" in given(features=features)
    assert "expected numbers [N, D]" in given(features=features[0], labels=labels)
    assert "labels is [89] of int64; expected [90]" in given(features=features, labels=labels[:-1])
    assert "labels is [90] of float64" in given(features=features, labels=labels + 0.5)
    assert "no known label" in given(features=features, labels=labels * 0 - 1)
    assert "NaN" in given(features=features * np.nan, labels=labels)
    path.write_bytes(b"not a zip")
    assert "cannot be read" in refused("propagate", path, *out)
    assert "there is no folder" in refused("propagate", npz, "--out", tmp_path / "a" / "b.csv")
    assert not (tmp_path / "labels.csv").exists()


def test_bad_labels(refused, npz, clusters, tmp_path):
    features, table = tmp_path / "features.npy", tmp_path / "known.csv"
    np.save(features, clusters[0])
    out = "--out", tmp_path / "labels.csv"

    def given(text):
        table.write_text(text)
        return refused("propagate", features, "--labels", table, *out)

    assert "--labels names a CSV" in refused("propagate", features, *out)
    assert "holds its own labels" in refused("propagate", npz, "--labels", table, *out)
    assert "cannot be read" in refused("propagate", features, "--labels", tmp_path / "no.csv", *out)
    assert "no column 'label'" in given("name\ncat\n")
    assert "has 1 rows; expected 90, or a column 'index'" in given("label\ncat\n")
    assert "index is '90'; expected one of 0 to 89" in given("index,label\n90,cat\n")
    assert "index is ''" in given("label,index\ncat\n")

"""The checker finds every planted bug, at its line, and leaves legal patterns alone.

A plant is a kernel with one bug; its source says the kind of finding and marks the lines (plant.h).
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from . import checker

checker.require()

SELF_TEST = "tests/cuda_on_cpu/self_test"
PLANT_FILES = ("planted_races.cu", "planted_accesses.cu", "planted_synchronisation.cu")
SHUFFLES = tuple(range(1, 6))
ALL_ORDERS = ("forward", "reverse", *SHUFFLES)


class Plant(NamedTuple):
    name: str
    kinds: list[str]
    file: str
    lines: set[int]


def read_plants(name: str) -> list[Plant]:
    """The plants of a file, each with its marked lines."""
    file = f"{SELF_TEST}/{name}"
    plants = []
    source = Path(checker.compiling.REPOSITORY, file).read_text()
    for number, line in enumerate(source.splitlines(), 1):
        if heading := re.match(r'(?:LAUNCHER_)?PLANT\("(.*)", (\w+)', line):
            plants.append(Plant(heading[2], heading[1].split(" or "), file, set()))
        if "// BUG" in line:
            plants[-1].lines.add(number)
    return plants


PLANTS = [plant for name in PLANT_FILES for plant in read_plants(name)]


@pytest.fixture(scope="module")
def kernels() -> checker.Kernels:
    return checker.load(f"{SELF_TEST}/*.cu", f"{SELF_TEST}/bindings.cpp")


@pytest.mark.parametrize("order", checker.ORDERS)
@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_plant_is_found(kernels: checker.Kernels, plant: Plant, order: checker.Order) -> None:
    n = 128
    values, output = np.arange(n, dtype=np.float32), np.zeros(n, np.float32)
    counters = np.zeros(8, np.uint32)
    launcher = getattr(kernels, plant.name)
    with pytest.raises(checker.KernelError) as caught:
        launcher(values, output, counters, n, order=order, initialised=["counters"])
    error = caught.value
    assert error.kind in plant.kinds, error
    marked = {checker.Place(plant.file, line) for line in plant.lines}
    assert marked.intersection(error.places) or not marked, error
    assert marked.issuperset(error.others), error
    assert (output == 0).all(), "arrays are written to in spite of the finding"


def test_every_plant_is_bound(kernels: checker.Kernels) -> None:
    assert {plant.name for plant in PLANTS} <= set(kernels.launchers)
    assert len(PLANTS) >= 60


def test_message_names_kernel_block_thread_and_both_places(kernels: checker.Kernels) -> None:
    arrays = np.zeros(128, np.float32), np.zeros(128, np.float32), np.zeros(8, np.uint32)
    with pytest.raises(checker.KernelError) as caught:
        kernels.last_block_without_fence(*arrays, 128, initialised=["counters"])
    error = caught.value
    assert (error.kernel, error.block, error.thread) == (
        "last_block_without_fence",
        (3, 0, 0),
        (0, 0, 0),
    )
    inner, outer = error.places
    assert str(error) == (
        f"race at {inner} (from {outer}) in last_block_without_fence, block (3, 0, 0), "
        f"thread (0, 0, 0): read of output[0], unordered with the write at {error.others[0]} "
        "by thread 0 of another block"
    )


# ---- legal patterns ------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ALL_ORDERS)
class TestLegalPatterns:
    """Each runs without a finding and gives the right values."""

    @pytest.fixture
    def values(self) -> np.ndarray:
        return np.random.default_rng(0).normal(size=777).astype(np.float32)

    @pytest.mark.parametrize("all_threads_fence", [False, True])
    def test_last_block_sum(self, kernels, order, values, all_threads_fence):
        total, ticket = np.empty(1, np.float32), np.zeros(1, np.uint32)
        parts = np.empty(5, np.float32)
        kernels.last_block_sum(
            *(values, parts, ticket, total, values.size, all_threads_fence),
            order=order,
            initialised=["ticket"],
        )
        np.testing.assert_allclose(total, values.sum(dtype=np.float64), rtol=1e-4)

    def test_last_warp_sum(self, kernels, order, values):
        total, ticket = np.empty(1, np.float32), np.zeros(1, np.uint32)
        used, parts = values[:128].copy(), np.empty(128, np.float32)
        kernels.last_warp_sum(used, parts, ticket, total, order=order, initialised=["ticket"])
        np.testing.assert_allclose(total, 2 * used.sum(dtype=np.float64), rtol=1e-4)

    def test_last_warp_of_block(self, kernels, order, values):
        total = np.empty(1, np.float32)
        kernels.last_warp_of_block(values, total, order=order)
        np.testing.assert_allclose(total, values[[0, 32, 64, 96]].sum(), rtol=1e-5)

    def test_histogram(self, kernels, order):
        values = np.random.default_rng(1).integers(0, 8, 500, dtype=np.int32)
        counts = np.empty(8, np.int32)
        kernels.histogram(values, counts, values.size, order=order)
        np.testing.assert_array_equal(counts, np.bincount(values, minlength=8))

    def test_compact(self, kernels, order):
        values = np.random.default_rng(2).integers(0, 100, 500, dtype=np.int32)
        kept, count = np.empty(500, np.int32), np.zeros(2, np.int32)
        kernels.compact(values, kept, count, values.size, order=order, initialised=["count"])
        odd = values[values % 2 == 1]
        assert count[0] == odd.size
        np.testing.assert_array_equal(np.sort(kept[: odd.size]), np.sort(odd))

    def test_rotate(self, kernels, order):
        rotated = np.empty(128, np.int32)
        kernels.rotate(rotated, 3, order=order)
        np.testing.assert_array_equal(rotated, np.tile((np.arange(32) + 3) % 32, 4))

    def test_halves(self, kernels, order, values):
        used, swapped = values[:32].copy(), np.empty(32, np.float32)
        kernels.halves(used, swapped, order=order)
        np.testing.assert_array_equal(swapped, np.roll(used, 16))

    def test_double_buffered(self, kernels, order, values):
        rows, sums = values[: 9 * 64].reshape(9, 64), np.empty(64, np.float32)
        kernels.double_buffered(rows, sums, 9, order=order)
        np.testing.assert_allclose(sums, rows.sum(0), rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("count", [1, 4, 7])
    def test_row_sums(self, kernels, order, values, count):
        rows, sums = values[: count * 50].reshape(count, 50), np.empty(count, np.float32)
        kernels.row_sums(rows, sums, count, 50, order=order)
        np.testing.assert_allclose(sums, rows.sum(1), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("n", [0, 3, 4, 515, 777])
    def test_vector_copy(self, kernels, order, values, n):
        copy = np.empty(n, np.float32)
        kernels.vector_copy(values[:n], copy, n, order=order)
        np.testing.assert_array_equal(copy, values[:n])

    @pytest.mark.parametrize("n", [1, 13, 64, 101])
    def test_carved_to_the_ends(self, kernels, order, n):
        sums = np.empty(64, np.float32)
        kernels.carved_to_the_ends(sums, n, order=order)
        np.testing.assert_allclose(sums, 3 * n * (n - 1) / 2 + 4)

    def test_bytes_and_structs(self, kernels, order, values):
        records, marks = values[:480].reshape(40, 12), np.empty(40, np.uint8)
        copies = np.empty_like(records)
        kernels.bytes_and_structs(records, copies, marks, order=order)
        np.testing.assert_array_equal(copies[:, 0], records[:, 0] + 1)
        np.testing.assert_array_equal(copies[:, 1:], records[:, 1:])
        np.testing.assert_array_equal(marks[4:], np.arange(4, 40))

    def test_scale_twice(self, kernels, order, values):
        table = 2 ** np.arange(8, dtype=np.float32)  # exact products
        once, twice = np.empty_like(values), np.empty_like(values)
        kernels.scale_twice(table, values, once, twice, values.size, order=order)
        np.testing.assert_array_equal(twice, values * np.resize(table, values.size) ** 2)

    def test_empty_grid_runs_nothing(self, kernels, order):
        where = np.full(6, 7, np.uint32)
        kernels.empty_grid(where, order=order, initialised=["where"])
        assert (where == 7).all()


# ---- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "exception", "message"),
    [
        ((np.zeros(4, np.float32),), TypeError, "vector_copy\\(from, to, n\\) got 1"),
        ((np.zeros(4), np.zeros(4, np.float32), 4), TypeError, "from is an array of float32"),
        ((np.zeros(8, np.float32)[::2], np.zeros(4, np.float32), 4), ValueError, "not contiguous"),
        (([0.0], np.zeros(4, np.float32), 4), TypeError, "from is an array"),
        (
            (np.zeros(4, np.float32), np.zeros(4, np.float32), 4.5),
            TypeError,
            "n is a number of int",
        ),
    ],
)
def test_arguments_are_checked(kernels, arguments, exception, message):
    with pytest.raises(exception, match=message):
        kernels.vector_copy(*arguments)


def test_an_output_may_not_overlap_another_array(kernels):
    array = np.zeros(8, np.float32)
    with pytest.raises(ValueError, match="from and to share memory"):
        kernels.vector_copy(array[:4], array[2:6], 4)


def test_unknown_names_are_refused(kernels):
    with pytest.raises(AttributeError, match="no launcher named nonsense"):
        _ = kernels.nonsense
    with pytest.raises(ValueError, match="has no output \\['from'\\]"):
        kernels.vector_copy(*[np.zeros(4, np.float32)] * 2, 4, initialised=["from"])


def test_an_array_keeps_its_alignment(kernels):
    """A view that starts at its base's second element is as misaligned on a GPU."""
    base = np.zeros(9, np.float32)
    with pytest.raises(checker.KernelError, match="misaligned access") as caught:
        kernels.vector_copy(base[1:], np.empty(8, np.float32), 8)
    assert caught.value.kernel == "vector_copy"


def test_a_shuffle_is_repeatable(kernels):
    """The order of a seed decides the order in which values are kept."""
    values = np.arange(1, 1001, 2, dtype=np.int32)
    results = []
    for order in (1, 1, 2):
        kept, count = np.empty(500, np.int32), np.zeros(2, np.int32)
        kernels.compact(values, kept, count, values.size, order=order, initialised=["count"])
        results.append(kept)
    assert (results[0] == results[1]).all()
    assert (results[0] != results[2]).any()

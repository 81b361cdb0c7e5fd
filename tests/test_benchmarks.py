"""The benchmarks compute what they claim to compare; their rows hold all that the picture needs."""

import math

import pytest
import torch

from fastssl.benchmarks import harness, picture, rows

CPU = torch.device("cpu")


def row(op, implementation, mode, milliseconds, work, date="2026-01-01", clock=harness.WALL):
    """A row of a shape 4x3 that took the same time in every round."""
    run = rows.Run("card", 1, "0.1.0", "", "2.13.0", "", "avx2", date)
    samples = [milliseconds] * 3
    return rows.Row.of(run, op, implementation, mode, clock, torch.float32, "4x3", work, samples)


@pytest.mark.parametrize("name", harness.names())
def test_implementations_agree(name, device):
    module = harness.load(name)
    case = min(module.CASES, key=math.prod)
    with harness.stream(device):
        implementations = list(module.implementations(*case, device, torch.float32))
        assert implementations[0].name == "fastssl"
        assert "eager" in [each.name for each in implementations]
        for mode in harness.modes(implementations[0]):
            harness.assert_equal_results(implementations, mode, harness.tolerance(module))


@pytest.mark.parametrize("name", harness.names())
def test_device_time_is_of_the_same_calls(name, gpu):
    """What a CUDA graph can hold is timed by one, in every mode and compiled too."""
    module = harness.load(name)
    case = min(module.CASES, key=math.prod)
    with harness.stream(gpu):
        implementations = list(module.implementations(*case, gpu, torch.float32))
        implementations += harness.compiled(implementations)
        for mode in harness.modes(implementations[0]):
            times = harness.time_in_turns(implementations, mode, gpu, 3, harness.DEVICE)
            assert set(times) == {each.name for each in implementations if each.captured}
            assert all(time > 0 for samples in times.values() for time in samples)


@pytest.mark.parametrize("name", harness.names())
def test_work_is_stated(name):
    module = harness.load(name)
    first = next(module.implementations(*module.EMPTY, CPU, torch.float32))
    for device in (CPU, torch.device("cuda")):
        for case in (*harness.cases(module, device), module.EMPTY):
            for mode in harness.modes(first):
                work = harness.total_work(module, case, device, torch.float32, mode)
                assert isinstance(work.bytes, int)
                assert isinstance(work.flops, int)
                assert work.bytes > 0


def test_modes_do_what_they_say():
    x = harness.normal(4, device=CPU, dtype=torch.float64)
    square = harness.Implementation("fastssl", lambda x: (x.square().sum(), x.max()), [x])
    total, largest = harness.prepare(square, "forward")()
    assert not total.requires_grad
    backward = harness.prepare(square, "backward")
    for _ in range(2):
        (gradient,) = backward()
        assert torch.equal(gradient, 2 * x)
    assert all(map(torch.equal, harness.prepare(square, "both")(), (total, largest, gradient)))
    assert harness.modes(harness.Implementation("", torch.sum, [x.detach()])) == ("forward",)


def test_an_output_that_is_no_scalar_gets_the_same_gradient_everywhere():
    x = harness.normal(4, 3, device=CPU, dtype=torch.float64)
    double = harness.Implementation("fastssl", lambda x: 2 * x, [x])
    (first,), (second,) = (harness.prepare(double, "backward")() for _ in range(2))
    assert torch.equal(first, second)


def test_results_that_differ_are_not_timed():
    x = harness.normal(4, 3, device=CPU, dtype=torch.float64)
    double = harness.Implementation("fastssl", lambda x: 2 * x, [x])
    close = harness.Implementation("eager", lambda x: 2 * x + 1e-9 * x.sum(), [x])
    harness.assert_equal_results([double, close], "both")
    wrong = harness.Implementation("eager", lambda x: 2 * x + 0.1 * x.sum().detach(), [x])
    with pytest.raises(AssertionError, match=r"eager differs from fastssl by .* in both"):
        harness.assert_equal_results([double, wrong], "both")


def test_a_compiled_backward_can_be_repeated():
    x = harness.normal(4, device=CPU, dtype=torch.float32)
    (compiled,) = harness.compiled([harness.Implementation("eager", lambda x: x.exp().sum(), [x])])
    backward = harness.prepare(compiled, "backward")
    assert torch.equal(*backward(), *backward())


def test_rows_survive_the_file(tmp_path):
    written = [row("op", "fastssl", mode, 0.5, harness.Work(3, 4)) for mode in harness.MODES]
    for each in written:
        rows.append(tmp_path / "rows.csv", [each])
    assert rows.read(tmp_path / "rows.csv") == written


def test_cases_are_those_of_the_newest_run():
    copy = row("machine", "copy", "forward", 10.0, harness.Work(1000, 0))
    product = row("machine", "product", "forward", 30.0, harness.Work(0, 1000))
    work = harness.Work(100, 50)
    old = row("op", "fastssl", "both", 7.0, work, date="2025-01-01")
    measured = [
        row("op", name, "both", ms, work) for name, ms in (("fastssl", 2.0), ("eager", 8.0))
    ]
    (case,) = picture.cases([old, copy, product, *measured])
    assert case.speed_up("fastssl", "both") == 4
    assert case.speed_up("torch.compile", "both") is None
    assert case.floors == {"both": (1.5, False)}  # 100 bytes take 1 ms, 50 operations 1.5 ms


def test_the_devices_own_time_is_drawn_where_there_is_one():
    limits = {"copy": harness.Work(1000, 0), "product": harness.Work(0, 1000)}
    measured = [
        row(op, name, "both", ms, work, clock=clock)
        for clock, faster in ((harness.WALL, 1.0), (harness.DEVICE, 0.5))
        for op, name, ms, work in (
            *(("machine", name, 20.0 * faster, work) for name, work in limits.items()),
            ("op", "fastssl", 3.0, harness.Work(100, 50)),
            ("op", "eager", 60.0 * faster, harness.Work(100, 50)),
        )
    ]
    (case,) = picture.cases(measured)
    assert case.speed_up("fastssl", "both") == 10
    assert case.floors == {"both": (1.0, True)}
    assert case.place.endswith("device time")

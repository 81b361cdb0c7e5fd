"""The temporal ensemble against a plain loop over images. N images, B rows, C classes."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from fastssl.objectives.temporal_ensemble import TemporalEnsemble

N, B, C = 13, 4, 3
ALPHA = 0.6


def epochs(count):
    """Index and predictions of every step; each image once an epoch, passes straddling steps."""
    order = torch.cat([torch.randperm(N) for _ in range(count)])
    for index in order[: len(order) // B * B].split(B):
        yield index, torch.randn(B, C, dtype=torch.float64).softmax(1)


def make():
    return TemporalEnsemble(N, C, ALPHA).double()


def test_five_epochs_are_a_plain_loop():
    ensemble = make()
    tau, n = torch.zeros(N, C, dtype=torch.float64), [0] * N
    for index, h in epochs(5):
        expected = torch.zeros((), dtype=torch.float64)
        for row, j in enumerate(index.tolist()):
            if n[j]:
                target = tau[j] / (1 - ALPHA ** n[j])
                expected += ((h[row] - target) ** 2).sum() / C / B
        torch.testing.assert_close(ensemble.distance(h, index), expected, rtol=1e-12, atol=1e-14)
        ensemble.update(h, index)
        for j in set(index.tolist()):
            rows = [row for row in range(B) if index[row] == j]
            for _ in rows:
                tau[j] = ALPHA * tau[j] + (1 - ALPHA) * h[rows].mean(0)
                n[j] += 1
    torch.testing.assert_close(ensemble.mean, tau, rtol=1e-12, atol=1e-14)
    assert ensemble.updates.tolist() == n


def test_an_image_in_two_rows():
    index = torch.tensor([5, 2, 5, 5])
    h = torch.randn(B, C, dtype=torch.float64).softmax(1)
    one, other = make(), make()
    one.update(h, index)
    order = torch.tensor([3, 2, 0, 1])
    other.update(h[order], index[order])
    torch.testing.assert_close(one.mean, other.mean, rtol=1e-14, atol=1e-15)
    expected = (1 - ALPHA**3) * (h[0] + h[2] + h[3]) / 3
    torch.testing.assert_close(one.mean[5], expected)
    assert one.updates.tolist() == [0, 0, 1, 0, 0, 3] + [0] * (N - 6)


def test_a_first_prediction_is_its_own_target():
    """Whatever alpha is: the zeros it started from have no share."""
    ensemble = make()
    index, h = next(epochs(1))
    assert ensemble.distance(h, index) == 0
    ensemble.update(h, index)
    assert ensemble.distance(h, index).item() == pytest.approx(0, abs=1e-30)


def test_only_the_predictions_receive_a_gradient():
    ensemble = make()
    index, h = next(epochs(1))
    ensemble.update(h.requires_grad_(), index)
    assert not ensemble.mean.requires_grad
    other = torch.randn(B, C, dtype=torch.float64).softmax(1).requires_grad_()
    ensemble.distance(other, index).backward()
    torch.testing.assert_close(other.grad, 2 * (other - h).detach() / (B * C))


def test_it_resumes_from_its_state():
    straight, stopped = make(), make()
    steps = list(epochs(5))
    for index, h in steps:
        straight.update(h, index)
    for index, h in steps[:7]:
        stopped.update(h, index)
    resumed = make()
    resumed.load_state_dict(copy.deepcopy(stopped.state_dict()))
    for index, h in steps[7:]:
        resumed.update(h, index)
    assert torch.equal(resumed.mean, straight.mean)
    assert torch.equal(resumed.updates, straight.updates)


def rank(number, folder):
    """A process with half of every step's rows, which takes in the rows of both."""
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=number, world_size=2)
    torch.manual_seed(3)
    ensemble, distances = make(), []
    for index, h in epochs(5):
        own = slice(number * B // 2, (number + 1) * B // 2)
        distances.append(ensemble.distance(h[own], index[own]))
        every_index, every_h = torch.empty_like(index), torch.empty_like(h)
        dist.all_gather_into_tensor(every_index, index[own].contiguous())
        dist.all_gather_into_tensor(every_h, h[own].contiguous())
        ensemble.update(every_h, every_index)
    torch.save((ensemble.state_dict(), torch.stack(distances)), f"{folder}/{number}")
    dist.destroy_process_group()


def test_two_processes_that_gather_are_one_with_all_rows(tmp_path):
    mp.start_processes(rank, (str(tmp_path),), nprocs=2, start_method="spawn")
    torch.manual_seed(3)
    ensemble, distances = make(), []
    for index, h in epochs(5):
        distances.append(ensemble.distance(h, index))
        ensemble.update(h, index)
    states, shares = zip(
        *(torch.load(tmp_path / str(n), weights_only=True) for n in (0, 1)), strict=True
    )
    for state in states:
        assert torch.equal(state["mean"], ensemble.mean)
        assert torch.equal(state["updates"], ensemble.updates)
    mean = (shares[0] + shares[1]) / 2
    torch.testing.assert_close(mean, torch.stack(distances), rtol=1e-12, atol=1e-14)

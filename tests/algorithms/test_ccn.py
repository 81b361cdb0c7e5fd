"""CCN's one backward against the three gradients of Algorithm 1, from the paper's equations.

L labeled rows, U unlabeled ones, C classes.
"""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from fastssl.algorithms import ccn
from fastssl.algorithms.base import Batch, State
from fastssl.algorithms.ccn import CCN, VARIANTS, CCNConfig, variant
from fastssl.errors import InputError
from fastssl.models import build_model

L, U, C, N = 4, 6, 5, 20
LABELS = torch.tensor([0, 4, 2, 2])
CONFIG = CCNConfig(
    entropy=0.9, adversarial=0.7, radius=1.5, mutual=0.8, ensemble=3.0, ramp_epochs=4.0
)


def model(name):
    return CONFIG if name == "full" else variant(CONFIG, name)


def make(config=CONFIG):
    """The algorithm in float64, in its third epoch, each image seen once or twice."""
    algorithm = CCN(build_model("small_cnn", 1, C), config, num_images=N).double()
    if config.correction:
        for index in (torch.arange(N), torch.arange(10)):
            algorithm.ensemble.update(torch.randn(len(index), C).double().softmax(1), index)
    algorithm.before_epoch(State(step=0, epoch=3))
    return algorithm


def make_batch():
    views = torch.randn(1, L + U, 1, 8, 8, dtype=torch.float64)
    return Batch(views, LABELS, torch.randperm(N)[: L + U])


def kl(target, logits):
    """Mean KL(softmax(target) ‖ softmax(logits)), the target held constant."""
    p = target.detach().softmax(1)
    return (p * (p.log() - logits.log_softmax(1))).sum(1).mean()


def unit(images):
    """Each scaled to norm 1."""
    return images / images.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def adversarial(network, images, clean, start, radius):
    """A of eq. 1, its direction the Hessian of the divergence at 0 times the start, by autograd."""
    r = torch.zeros_like(images, requires_grad=True)
    divergence = kl(clean, network(images + r)[0])
    (gradient,) = torch.autograd.grad(divergence, r, create_graph=True)
    (direction,) = torch.autograd.grad((gradient * start).sum(), r)
    return kl(clean, network(images + radius * unit(direction))[0])


def three_losses(algorithm, batch, starts):
    """L1, L2 and LC as the paper writes them (eq. 1, 4, 5)."""
    config, nets = algorithm.config, (algorithm.network, algorithm.second)
    x, u = batch.views[0].split([L, U])
    g_x, f_x = zip(*(net(x) for net in nets), strict=True)
    g_u, f_u = zip(*(net(u) for net in nets), strict=True)
    losses = []
    for i in (0, 1):
        p = g_u[i].softmax(1)
        own = F.cross_entropy(g_x[i], batch.labels)
        own = own - config.entropy * (p * p.log()).sum(1).mean()
        own = own + config.mutual * kl(g_u[1 - i], g_u[i])
        if config.adversarial:
            a = adversarial(nets[i], u, g_u[i], starts[i], config.radius)
            own = own + config.adversarial * a
        losses.append(own)
    if not config.correction:
        return *losses, torch.zeros((), dtype=torch.float64)
    h_x = algorithm.correction(g_x[0], f_x[1])
    h_u = algorithm.correction(g_u[0], f_u[1])
    losses[1] = losses[1] + F.cross_entropy(g_u[1], h_u.argmax(1))
    mu = config.ensemble * math.exp(-5 * (1 - 3 / config.ramp_epochs) ** 2)
    index = batch.index[L:]
    target = algorithm.ensemble.mean[index] / (
        1 - config.momentum ** algorithm.ensemble.updates[index].unsqueeze(1).double()
    )
    l_c = F.cross_entropy(h_x, batch.labels) + mu * ((h_u.softmax(1) - target) ** 2).mean()
    return *losses, l_c


@pytest.mark.parametrize("name", ["full", *VARIANTS])
def test_one_backward_gives_the_gradients_of_algorithm_1(name):
    algorithm, batch = make(model(name)), make_batch()
    by_paper = copy.deepcopy(algorithm)
    torch.manual_seed(5)
    starts = [unit(torch.randn(U, 1, 8, 8, dtype=torch.float64)) for _ in range(2)]
    first, second, correction = three_losses(by_paper, batch, starts)

    torch.manual_seed(5)
    loss = algorithm.loss(batch)
    torch.testing.assert_close(loss.total, first + second + correction, rtol=1e-12, atol=1e-12)
    loss.total.backward()
    modules = {"network": first + correction, "second": second + correction}
    if algorithm.config.correction:
        modules["correction"] = correction
    for module, its_loss in modules.items():
        parameters = list(getattr(by_paper, module).parameters())
        expected = torch.autograd.grad(
            its_loss, parameters, retain_graph=True, materialize_grads=True
        )
        own = [p.grad for p in getattr(algorithm, module).parameters()]
        for got, want in zip(own, expected, strict=True):
            got = torch.zeros_like(want) if got is None else got
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


RECEIVERS = {
    "mutual_1": {"network"},
    "mutual_2": {"second"},
    "adversarial_1": {"network"},
    "adversarial_2": {"second"},
    "pseudo_label_2": {"second"},
    "ensemble_c": {"network", "second", "correction"},
    "supervised_c": {"network", "second", "correction"},
}


def test_pseudo_labels_and_peers_receive_no_gradient(monkeypatch):
    """Each term alone reaches the networks it teaches and no other."""
    algorithm, found = make(), {}

    def keep(objective, *names):
        waiting = iter(names)

        def kept(*arguments, **options):
            result = objective(*arguments, **options)
            name = next(waiting)
            if name is not None:
                found[name] = result[0] if isinstance(result, tuple) else result
            return result

        return kept

    for objective, names in (
        ("mutual_learning", ["mutual_1", "mutual_2"]),
        ("virtual_adversarial", ["adversarial_1", "adversarial_2"]),
        ("pseudo_label", ["pseudo_label_2"]),
        ("supervised", [None, None, "supervised_c"]),
    ):
        monkeypatch.setattr(ccn, objective, keep(getattr(ccn, objective), *names))
    distance = keep(algorithm.ensemble.distance, "ensemble_c")
    monkeypatch.setattr(algorithm.ensemble, "distance", distance)
    loss = algorithm.loss(make_batch())
    assert found.keys() == RECEIVERS.keys()
    modules = {name: getattr(algorithm, name) for name in ("network", "second", "correction")}
    for term, value in found.items():
        assert torch.equal(value, loss.terms[term])
        reached = set()
        for name, module in modules.items():
            gradients = torch.autograd.grad(
                value, list(module.parameters()), retain_graph=True, allow_unused=True
            )
            if any(g is not None and g.abs().max() > 0 for g in gradients):
                reached.add(name)
        assert reached == RECEIVERS[term], term
    assert not algorithm.ensemble.mean.requires_grad


def test_a_step_costs_eight_forwards_an_unlabeled_image_and_network():
    """And three a labeled one: its forward, and a gradient of the input and of the parameters."""
    labels = torch.arange(10).repeat(2)[:8]
    algorithm = CCN(build_model("conv_large", 3, 10), CCNConfig(), num_images=N)
    batch = Batch(torch.randn(1, 8 + 12, 3, 16, 16), labels, torch.arange(N))
    algorithm.before_epoch(State(step=0, epoch=3))
    with torch.no_grad(), FlopCounterMode(display=False) as forward:
        algorithm.network(batch.views[0, :1].expand(2, -1, -1, -1))
    one = forward.get_total_flops() / 2
    with FlopCounterMode(display=False) as step:
        algorithm.loss(batch).total.backward()
    assert step.get_total_flops() == pytest.approx(2 * (3 * 8 + 8 * 12) * one, rel=0.03)


@pytest.mark.parametrize("statistics", ["labeled", "unlabeled"])
def test_running_statistics_move_by_one_clean_pass(statistics):
    algorithm, batch = make(CCNConfig(statistics=statistics)), make_batch()
    expected = copy.deepcopy(algorithm.network)
    x, u = batch.views[0].split([L, U])
    expected(x if statistics == "labeled" else u)
    algorithm.loss(batch)
    for ours, theirs in zip(algorithm.network.buffers(), expected.buffers(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_divergence_is_nothing_without_a_perturbation():
    loss = make(CCNConfig(radius=0.0)).loss(make_batch())
    assert loss.terms["adversarial_1"].abs() < 1e-12
    assert loss.terms["adversarial_2"].abs() < 1e-12


def test_the_ensemble_takes_in_the_unlabeled_predictions_after_they_were_compared():
    algorithm, batch = make(), make_batch()
    before = copy.deepcopy(algorithm.ensemble)
    expected = copy.deepcopy(algorithm)
    x, u = batch.views[0].split([L, U])
    for net in (expected.network, expected.second):
        net(x)
    h = expected.correction(expected.network(u)[0], expected.second(u)[1]).softmax(1)
    loss = algorithm.loss(batch)
    index = batch.index[L:]
    torch.testing.assert_close(loss.terms["ensemble_c"], before.distance(h, index))
    before.update(h, index)
    torch.testing.assert_close(algorithm.ensemble.mean, before.mean)
    assert torch.equal(algorithm.ensemble.updates, before.updates)


def test_the_ensemble_has_no_weight_in_the_first_epoch():
    algorithm = make()
    weights = []
    for epoch in range(6):
        algorithm.before_epoch(State(step=0, epoch=epoch))
        weights.append(algorithm.ensemble_weight.item())
    assert weights[0] == 0
    assert weights == sorted(weights)
    assert weights[1] == pytest.approx(3 * math.exp(-5 * 0.75**2))
    assert weights[4:] == [3.0, 3.0]


def test_the_two_networks_start_apart():
    algorithm = make()
    for name, parameter in algorithm.second.named_parameters():
        if parameter.dim() > 1:
            assert not torch.equal(parameter, algorithm.network.get_parameter(name))


@pytest.mark.parametrize(
    ("name", "networks"), [("full", ["net1", "net2", "ccn"]), ("no-ccn", ["net1", "net2"])]
)
def test_net_1_is_evaluated_first(name, networks):
    algorithm = make(model(name)).eval()
    images = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    assert list(algorithm.predictors()) == networks
    assert torch.equal(algorithm.predict(images), algorithm.network(images)[0])
    if "ccn" in networks:
        g1, (_, f2) = algorithm.network(images)[0], algorithm.second(images)
        assert torch.equal(algorithm.predictors()["ccn"](images), algorithm.correction(g1, f2))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"radius": -1.0}, "algorithm.radius"),
        ({"mutual": float("nan")}, "algorithm.mutual"),
        ({"momentum": 1.0}, "algorithm.momentum: 1.0"),
        ({"statistics": "both"}, "algorithm.statistics: unknown name 'both'"),
    ],
)
def test_impossible_settings_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        CCNConfig(**values)


def test_an_unknown_variant_is_refused():
    with pytest.raises(InputError, match="did you mean 'no-vat'"):
        variant(CONFIG, "no-vta")

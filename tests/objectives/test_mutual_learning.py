import torch
import torch.nn.functional as F

from fastssl.objectives.mutual_learning import mutual_learning


def test_each_network_gets_the_gradient_of_its_own_term():
    """CCN eq. 1 and 4: in one backward pass, as if the peer's prediction were data."""
    first, second = (torch.randn(8, 5, requires_grad=True) for _ in range(2))
    (mutual_learning(second, first) + mutual_learning(first, second)).backward()
    p, q = first.detach().softmax(1), second.detach().softmax(1)
    torch.testing.assert_close(first.grad, (p - q) / 8)
    torch.testing.assert_close(second.grad, (q - p) / 8)


def test_direction_of_the_divergence():
    peer, own = torch.randn(2, 8, 5)
    expected = F.kl_div(own.log_softmax(1), peer.softmax(1), reduction="batchmean")
    torch.testing.assert_close(mutual_learning(peer, own), expected)

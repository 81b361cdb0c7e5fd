import torch
import torch.nn.functional as F

from fastssl.objectives.pseudo_label import pseudo_label


def test_mean_over_all_rows_of_the_kept_ones_cross_entropy():
    weak = torch.zeros(8, 5)
    weak[[1, 4], [2, 0]] = 9.0
    strong = torch.randn(3, 8, 5)
    loss, kept = pseudo_label(weak, strong)
    expected = sum(
        F.cross_entropy(view[[1, 4]], torch.tensor([2, 0]), reduction="sum") for view in strong
    )
    torch.testing.assert_close(loss, expected / (3 * 8))
    assert kept == 2 / 8


def test_threshold():
    weak = torch.zeros(8, 5)
    assert pseudo_label(weak, torch.randn(8, 5), threshold=0.5) == (0, 0)
    assert pseudo_label(weak, torch.randn(8, 5), threshold=0.1)[1] == 1

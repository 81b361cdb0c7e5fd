"""Classification by the nearest labeled images, against distances written out."""

import torch
from probe import Probe

from fastssl.training.evaluation import predict_nearest


def test_the_vote_is_weighted_by_similarity():
    probe = Probe()
    known, asked = torch.randn(9, 1, 2, 2), torch.randn(20, 1, 2, 2)
    labels = torch.tensor([2, 0, 0, 0, 1, 1, 1, 1, 2])  # two of the smallest class: k = 2
    found = predict_nearest(probe, known.split(4), labels, asked.split(7))
    assert list(found) == ["knn"]
    assert probe.training

    probe.eval()
    with torch.no_grad():
        a, b = (probe.network(x)[1].double() for x in (asked, known))
    for i, row in enumerate(found["knn"].exp()):
        similarity = torch.nn.functional.cosine_similarity(a[i].expand_as(b), b)
        nearest = similarity.topk(2).indices
        vote = torch.zeros(3, dtype=torch.float64)
        for n in nearest.tolist():
            vote[labels[n]] += (similarity[n] / 0.07).exp()
        torch.testing.assert_close(row.double(), vote / vote.sum(), rtol=1e-3, atol=1e-4)

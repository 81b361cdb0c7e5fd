"""A network whose weights are the exponential moving average of another's."""

import copy

import torch
from torch import Tensor

from fastssl.models import Backbone


class WeightAverage(torch.nn.Module):
    """θ' <- μ θ' + (1 - μ) θ (MUSCLE eq. 2), μ = min(1 - 1/(n + 1), decay) at update n.

    The warm-up of μ makes the first updates a plain mean, so that the random start is forgotten.
    Only parameters are averaged: batch-norm statistics are `network`'s own, of the images that go
    through it, or are taken over by `update(..., buffers=True)`.
    """

    def __init__(self, network: Backbone, decay: float) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [N,C] and features [N,D] of images [N,K,H,W]."""
        return self.network(images)

    @torch.no_grad()
    def update(self, network: Backbone, *, buffers: bool = False) -> None:
        """Take in the weights of `network`, and its batch-norm statistics if `buffers` is set.

        Everything stays on the device, the number of updates too.
        """
        self.updates += 1
        weight = (1 / (self.updates.double() + 1)).clamp(min=1 - self.decay)  # 1 - μ
        average = list(self.network.parameters())
        change = torch._foreach_sub(list(network.parameters()), average)
        torch._foreach_mul_(change, weight)
        torch._foreach_add_(average, change)
        if buffers:
            torch._foreach_copy_(list(self.network.buffers()), list(network.buffers()))

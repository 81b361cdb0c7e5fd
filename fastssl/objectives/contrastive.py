"""The contrastive term of MUSCLE's figure 2, c and d. N rows, D features, V hard views."""

import torch
from torch import Tensor

from fastssl import ops


def contrastive(weak_features: Tensor, hard_features: Tensor, temperature: float = 0.5) -> Tensor:
    """NT-Xent in nats between an image's weak view and each of its hard views, averaged over them.

    An image's two views are a pair, the other images' views of the same kinds are what it is told
    from (Chen et al., 2020, eq. 1). The paper leaves projection head, temperature and weight open;
    `temperature` is that of SimCLR on CIFAR-10 (appendix B.9).

    Args:
        weak_features: [N,D].
        hard_features: [V,N,D].
        temperature: what cosine similarities are divided by, above 0.

    Raises:
        ValueError: the shapes do not match, a dimension is empty, or temperature is not above 0.
    """
    if hard_features.dim() != 3 or len(hard_features) == 0:
        raise ValueError(
            f"contrastive: hard_features is {list(hard_features.shape)}; expected [V,N,D], V > 0"
        )
    losses = [ops.nt_xent(weak_features, view, temperature) for view in hard_features]
    return torch.stack(losses).mean()

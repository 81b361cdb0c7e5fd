"""The unsupervised term of MUSCLE, l_u. N rows, C classes, V hard views."""

import torch.distributed as dist
from torch import Tensor

from fastssl import ops


def mutual_information(
    weak_logits: Tensor, hard_logits: Tensor, *, group: dist.ProcessGroup | None = None
) -> Tensor:
    """Mutual information in nats between an image's weak and hard views (MUSCLE eq. 4 to 6).

    The weak view of every image is paired with each of its hard views; all V*N pairs are pooled in
    one joint distribution, as in IIC. To be maximised; at most ln C.

    Args:
        weak_logits: [N,C].
        hard_logits: [V,N,C].
        group: processes whose rows, N of each, are one batch; as `ops.mutual_information` takes it.

    Raises:
        ValueError: the shapes do not match, or a dimension is empty.
    """
    return ops.mutual_information(weak_logits, hard_logits, group=group)

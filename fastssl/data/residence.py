"""Where the images are while a run trains: all of them on the device, or in a file on the host.

K channels, H x W pixels.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

SHARE = 0.5  # of the device's free memory that images may fill; the networks need the rest


def fits(images: Tensor, device: torch.device) -> bool:
    """Whether images uint8 [N,K,H,W] can stay on the device; the host's are where they are."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return images.nbytes <= SHARE * free


class Gatherer:
    """The images of a step, gathered on the host one step ahead and sent from pinned memory.

    For images that the device cannot hold: they stay in a memory map, of which a thread reads the
    rows of the next step while the device computes this one.
    """

    def __init__(
        self, images: Tensor, positions: Callable[[int], Tensor], device: torch.device
    ) -> None:
        """Nothing is read before the first step.

        Args:
            images: uint8 [N,K,H,W], on the host.
            positions: the rows of a step, int64 on the host.
            device: where they go.
        """
        self.images = images
        self.positions = positions
        self.device = device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gather")
        self._ahead: tuple[int, Future[Tensor]] | None = None

    def at(self, step: int) -> Tensor:
        """The images of one step on the device; the step after it is on its way."""
        if self._ahead is None or self._ahead[0] != step:
            self._ahead = step, self._thread.submit(self._gather, step)
        gathered = self._ahead[1].result()
        self._ahead = step + 1, self._thread.submit(self._gather, step + 1)
        # torch gives a pinned block to nobody else before the copy out of it is done.
        return gathered.to(self.device, non_blocking=True)

    def _gather(self, step: int) -> Tensor:
        position = self.positions(step)
        shape = (len(position), *self.images.shape[1:])
        pinned = self.device.type == "cuda"
        rows = torch.empty(shape, dtype=self.images.dtype, pin_memory=pinned)
        return torch.index_select(self.images, 0, position, out=rows)

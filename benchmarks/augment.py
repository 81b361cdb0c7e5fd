"""augment against torchvision: a weak view and three of RandAugment, as in MUSCLE.

N images of S x S pixels in colour, uint8; what comes out is normalised. Forward alone, since it has
no gradient. The images are CIFAR-10's where $FASTSSL_DATA holds it in torchvision's layout and
torchvision is installed, else squares of photographs that come with scikit-learn.
"""

import os
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fastssl.benchmarks.harness import Implementation, Work
from fastssl.ops import augment
from fastssl.ops.augment import augment_reference
from fastssl.ops.policies import RandAugment, Weak

CASES = [(16, 32), (512, 32), (128, 84)]
EMPTY = (1, 8)
DTYPES = (torch.float32, torch.bfloat16)
MOST_FOR_EAGER = 16  # one image after another in Python: beyond that it is minutes
HARD_VIEWS = 3
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def photographs(N: int, S: int) -> Tensor:
    """Squares of photographs, uint8 [N, 3, S, S]."""
    from sklearn.datasets import load_sample_images

    pictures = [torch.tensor(picture) for picture in load_sample_images().images]
    generator = torch.Generator().manual_seed(0)
    squares = []
    for n in range(N):
        picture = pictures[n % 2]
        y, x = (int(torch.randint(side - S, (), generator=generator)) for side in picture.shape[:2])
        squares.append(picture[y : y + S, x : x + S])
    return torch.stack(squares).permute(0, 3, 1, 2).contiguous()


def images_of(N: int, S: int) -> Tensor:
    """CIFAR-10's first N images if they are there and of that size, else photographs."""
    root = os.environ.get("FASTSSL_DATA")
    if root and S == 32:
        try:
            from torchvision.datasets import CIFAR10

            pixels = torch.from_numpy(CIFAR10(root).data[:N])
            return pixels.permute(0, 3, 1, 2).contiguous()
        except (ImportError, RuntimeError) as reason:
            warnings.warn(f"augment: photographs instead of CIFAR-10: {reason}", stacklevel=2)
    return photographs(N, S)


def implementations(
    N: int, S: int, device: torch.device, dtype: torch.dtype
) -> Iterator[Implementation]:
    """What is timed for one shape; fastssl first."""
    weak = Weak(translate=S // 8, flip=True)
    policies = [weak, *[RandAugment(weak=weak)] * HARD_VIEWS]
    images = images_of(N, S).to(device)
    arguments = {
        "seed": 0,
        "step": torch.tensor(1, device=device),
        "index": torch.arange(N, device=device),
        "mean": torch.tensor(MEAN, device=device),
        "std": torch.tensor(STD, device=device),
        "dtype": dtype,
    }
    yield Implementation("fastssl", lambda x: augment(x, policies, **arguments), [images])
    if N <= MOST_FOR_EAGER:
        # Which operations run depends on data, so that there is nothing for torch.compile in it.
        reference = torch.compiler.disable(augment_reference)

        def eager(x: Tensor) -> Tensor:
            return reference(x, policies, **arguments)

        yield Implementation("eager", eager, [images], captured=False)
    if N > 1:
        yield from torchvision_peers(images, S, dtype)


def torchvision_peers(images: Tensor, S: int, dtype: torch.dtype) -> Iterator[Implementation]:
    """Torchvision's pipelines to the same end, but for Cutout, which they leave out.

    On whole batches one choice serves all images: less than what the others do.
    """
    try:
        from PIL import Image
        from torchvision import transforms as v1
        from torchvision.transforms import v2
    except ImportError as reason:
        warnings.warn(f"augment: torchvision is not timed: {reason}", stacklevel=2)
        return

    def pipelines(library, ending: list) -> tuple[Callable, Callable]:
        flip = library.RandomHorizontalFlip()
        crop = library.RandomCrop(S, padding=S // 8, padding_mode="reflect")
        operations = library.RandAugment(2, 10)
        return (
            library.Compose([flip, crop, *ending]),
            library.Compose([flip, crop, operations, *ending]),
        )

    normalise = v1.Normalize(MEAN, STD)
    of_pictures = pipelines(v1, [v1.ToTensor(), normalise])
    of_tensors = pipelines(v2, [v2.ToDtype(dtype, scale=True), v2.Normalize(MEAN, STD)])
    arrays = images.permute(0, 2, 3, 1).cpu().numpy()

    def views(weak: Callable, hard: Callable, x) -> list[Tensor]:
        return [weak(x), *(hard(x) for _ in range(HARD_VIEWS))]

    def pillow(x: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            view for array in arrays for view in views(*of_pictures, Image.fromarray(array))
        )

    def each(x: Tensor) -> tuple[Tensor, ...]:
        return tuple(view for image in x for view in views(*of_tensors, image))

    def batch(x: Tensor) -> tuple[Tensor, ...]:
        return tuple(views(*of_tensors, x))

    own = {"check": False, "captured": False}  # they draw in Python
    if images.device.type == "cpu":
        yield Implementation("torchvision on Pillow", pillow, [images], **own)
    yield Implementation("torchvision v2, each", each, [images], **own)
    yield Implementation("torchvision v2, batch", batch, [images], **own)


def work(N: int, S: int, size: int) -> dict[str, Work]:
    """Images read, views written; a multiplication and an addition normalise a pixel."""
    pixels, views = 3 * N * S**2, 1 + HARD_VIEWS
    return {"forward": Work(bytes=pixels * (1 + views * size), flops=2 * views * pixels)}

"""A trained network as one file for other programs: from the pixels of an image to probabilities.

Every format takes images uint8 [N,K,H,W] as a decoder gives them, for any N >= 1, and gives their
probabilities float32 [N,C]; normalisation and softmax are inside. Class names travel with it.

    pt2           torch.export.load(FILE).module()(images); names: extra file class_names.json
    onnx          input `images`, output `probabilities`; names: metadata class_names, as JSON
    safetensors   load_classifier(FILE)(images); names: class_names of the result

N images, K channels, H x W pixels, C classes.
"""

import copy
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fastssl.data.normalise import normalise
from fastssl.errors import InputError, unknown_name
from fastssl.models import Backbone, make_network
from fastssl.recipes.trained import Trained, require_head

FORMAT = 1  # of the safetensors file
HEADER = "fastssl"  # its metadata
ONNX_PACKAGES = ("onnx", "onnxscript")


class ImageClassifier(nn.Module):
    """A network with what comes before and after it."""

    def __init__(
        self, network: Backbone, mean: Tensor, std: Tensor, class_names: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.class_names = class_names

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities float32 [N,C] of images uint8 [N,K,H,W]."""
        logits, _ = self.network(normalise(images, self.mean, self.std))
        return logits.softmax(1)


def export(trained: Trained, kind: str) -> bytes:
    """The contents of a file with the network the paper evaluates.

    Args:
        trained: the run.
        kind: one of `EXPORTS`.

    Raises:
        InputError: there is no such format, it needs a package that is not installed, or the run is
            of points, or pre-trained without labels.
    """
    if kind not in EXPORTS:
        raise unknown_name("format", kind, EXPORTS)
    require_head(trained.algorithm)
    if len(trained.shape) != 3:
        raise InputError("the run was trained on points, not images; expected images")
    network = copy.deepcopy(trained.algorithm.evaluated)
    network.to("cpu", memory_format=torch.contiguous_format)
    classifier = ImageClassifier(network, trained.mean, trained.std, trained.class_names)
    return EXPORTS[kind](classifier.eval().requires_grad_(False), trained)


def to_pt2(classifier: ImageClassifier, trained: Trained) -> bytes:
    """An exported program of torch's."""
    file = io.BytesIO()
    names = json.dumps(classifier.class_names)
    torch.export.save(_program(classifier, trained), file, extra_files={"class_names.json": names})
    return file.getvalue()


def to_onnx(classifier: ImageClassifier, trained: Trained) -> bytes:
    """An ONNX model, its weights inside.

    Raises:
        InputError: a package is missing.
    """
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"format: onnx needs {' and '.join(missing)}, not installed here; "
            "get them with: pip install 'fastssl[onnx]'"
        )
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's about its own converter
        exported = torch.onnx.export(
            _program(classifier, trained),
            dynamo=True,
            input_names=["images"],
            output_names=["probabilities"],
            verbose=False,
        )
    model = exported.model_proto
    entry = model.metadata_props.add()
    entry.key, entry.value = "class_names", json.dumps(classifier.class_names)
    return model.SerializeToString()


def to_safetensors(classifier: ImageClassifier, trained: Trained) -> bytes:
    """The weights, and how to rebuild what they belong to."""
    model = trained.config.model
    header = {
        "format": FORMAT,
        "network": model.name,
        "options": {k: v for k, v in model.options.items() if k != "pretrained"},
        "shape": trained.shape,
        "class_names": classifier.class_names,
    }
    tensors = {name: value.contiguous() for name, value in classifier.state_dict().items()}
    return save(tensors, metadata={HEADER: json.dumps(header)})


EXPORTS: dict[str, Callable[[ImageClassifier, Trained], bytes]] = {
    "pt2": to_pt2,
    "onnx": to_onnx,
    "safetensors": to_safetensors,
}


def load_classifier(path: Path | str, *, network: nn.Module | None = None) -> ImageClassifier:
    """What `to_safetensors` wrote, in evaluation mode on the CPU.

    Args:
        path: the file.
        network: a module of the same class as the run's, if it trained one of its user's own: the
            file holds its weights, not its code.

    Raises:
        InputError: not such a file, or the module is missing or another one.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = json.loads(file.metadata()[HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header["format"] != FORMAT:
            raise ValueError(f"format {header['format']}, this version reads {FORMAT}")
        names = tuple(header["class_names"])
        built = make_network(
            header["network"],
            tuple(header["shape"]),
            len(names),
            module=network,
            **header["options"],
        )
        classifier = ImageClassifier(built, tensors["mean"], tensors["std"], names)
        classifier.load_state_dict(tensors)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{path}: not a network that fastssl exported ({error})") from error
    return classifier.eval()


def _program(classifier: ImageClassifier, trained: Trained) -> torch.export.ExportedProgram:
    """The classifier as a graph, for any number of images; what normalises weights is worked in."""
    for module in list(classifier.modules()):
        for name in list(getattr(module, "parametrizations", {})):
            parametrize.remove_parametrizations(module, name)
    example = torch.zeros(2, *trained.shape, dtype=torch.uint8)
    batch = torch.export.Dim("N", min=1)
    return torch.export.export(classifier, (example,), dynamic_shapes={"images": {0: batch}})

"""Train a classifier from Python, open one that was trained, use it. N images, C classes."""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from fastssl.data.files import find_images, read_image
from fastssl.data.sources import resolve_source, short_name
from fastssl.errors import InputError
from fastssl.models import OWN_MODULE, Backbone
from fastssl.recipes import runs
from fastssl.recipes.config import Config, ModelConfig
from fastssl.recipes.experiment import Experiment, configure
from fastssl.recipes.trained import Trained, open_trained, trained_by, with_data

PathName = str | PathLike[str]

IMAGES_AT_ONCE = 256  # twice that many are in memory, however many there are


class Prediction(NamedTuple):
    """What a classifier says of an image."""

    image: str  # its path
    class_name: str
    confidence: float  # the softmax of the class


@dataclass(frozen=True, eq=False)
class Classifier:
    """The networks of a run, as a step of it left them; made by `fit` and `load`.

    It predicts without the run's data; `experiment` and `accuracies` read them.
    """

    trained: Trained  # its configuration and algorithm, and what its images are like
    folder: Path  # of the run
    data_dir: str | None = None  # where its named data set is now, if not where it was
    trained_here: Experiment | None = None  # of `fit`, its data already read

    @property
    def step(self) -> int:
        """Steps done."""
        return self.trained.step

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names."""
        return self.trained.class_names

    @property
    def network(self) -> Backbone:
        """The network the paper evaluates: images [N,K,H,W] -> (logits [N,C], features [N,D]).

        Its images are normalised: `trained.inputs` makes them of uint8 ones. Of a module of your
        own, `network.to_module()` is the module again, with what it learned.
        """
        return self.trained.algorithm.evaluated

    @cached_property
    def experiment(self) -> Experiment:
        """The same networks with the data and the split of their run.

        Raises:
            InputError: the data are not there, or are other ones.
        """
        return self.trained_here or with_data(self.trained, self.folder, self.data_dir)

    @cached_property
    def accuracies(self) -> dict[str, float]:
        """Accuracy of every network on the test images, the one the paper evaluates first.

        Empty if the data has no test images and none were held out.

        Raises:
            InputError: as `experiment`.
        """
        return self.experiment.test_evaluation().accuracies

    def predict(self, images: PathName | Iterable[PathName]) -> list[Prediction]:
        """Classes of image files, and of the image files in and below folders.

        Images are cut to the proportions of the training images and resampled to their size.

        Raises:
            InputError: a file that is not there or cannot be read, or a folder without an image.
        """
        given = [images] if isinstance(images, str | PathLike) else images
        paths = find_images([Path(path) for path in given])
        bad: dict[Path, str] = {}
        predictions = list(self.classify(paths, bad))
        if bad:
            raise unreadable(bad, len(paths))
        return predictions

    def logits(self, images: Tensor) -> Tensor:
        """Logits [N,C], on the host, of images uint8 [N,K,H,W].

        Of a run that pre-trains without labels, whose head knows no class, they are log shares of
        a vote of the labeled images, which are then read.
        """
        if self.trained.algorithm.needs_labels:
            return self.trained.logits(images.split(IMAGES_AT_ONCE))
        inputs = map(self.trained.inputs, images.split(IMAGES_AT_ONCE))
        return next(iter(self.experiment.predict(inputs).values()))

    def classify(
        self,
        paths: Sequence[Path],
        bad: dict[Path, str],
        progressed: Callable[[int], object] = lambda files: None,
    ) -> Iterator[Prediction]:
        """Classes of image files, in batches, which are decoded one ahead of the network.

        Args:
            paths: the files.
            bad: gets those that cannot be read, each with the reason.
            progressed: told how many files were looked at since it was last called.

        Raises:
            InputError: the run was trained on points.
        """
        shape = self.trained.shape
        if len(shape) != 3:
            raise InputError(f"{self.folder}: its data are points, not images")
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool, warnings.catch_warnings():
            # Half of Pillow's limit for a bomb only warns, and is a large photograph.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)

            def decode(some: Sequence[Path]) -> list[Future[Tensor]]:
                return [pool.submit(read_image, path, shape) for path in some]

            batches = [paths[i : i + IMAGES_AT_ONCE] for i in range(0, len(paths), IMAGES_AT_ONCE)]
            ahead = decode(batches[0])
            for number, batch in enumerate(batches):
                current, ahead = ahead, decode(batches[number + 1] if batches[number + 1 :] else [])
                read: dict[Path, Tensor] = {}
                for path, image in zip(batch, current, strict=True):
                    try:
                        read[path] = image.result()
                    except InputError as error:
                        bad[path] = str(error.__cause__) or type(error.__cause__).__name__
                if read:
                    surest = self.logits(torch.stack(list(read.values()))).softmax(1).max(1)
                    for path, c, confidence in zip(
                        read, surest.indices.tolist(), surest.values.tolist(), strict=True
                    ):
                        yield Prediction(str(path), self.class_names[c], confidence)
                progressed(len(batch))


def unreadable(bad: dict[Path, str], total: int) -> InputError:
    """The error that names all files, of `total`, that cannot be read."""
    lines = [f"{path} cannot be read as an image ({reason})" for path, reason in bad.items()]
    if len(lines) == 1:
        return InputError(f"image: {lines[0]}")
    return InputError(f"image: {len(bad)} of {total} files cannot be read", lines)


def fit(
    algorithm: str = "muscle",
    data: PathName = "digits",
    *,
    network: nn.Module | str | None = None,
    labels: int | None = None,
    seed: int | None = None,
    steps: int | None = None,
    device: str | None = None,
    data_dir: PathName | None = None,
    init: PathName | None = None,
    settings: dict[str, Any] | None = None,
    out: PathName | None = None,
    resume: bool = False,
    overwrite: bool = False,
    download: bool = False,
) -> Classifier:
    """Train a classifier: what `fastssl train` does, with its defaults and its run folder.

    Args:
        algorithm: such as "muscle", "muscle+mean-teacher", "fixmatch", "ccn", or one of your own
            (`fastssl.algorithms.register`).
        data: a data set's name; a folder of images (one folder a class, and unlabeled/); or a CSV.
        network: any module that takes images [N,K,H,W] and ends in an nn.Linear, which is replaced
            if it has another number of classes; it is copied, and the copy is trained. Or a
            network's name, such as "resnet18" or "torchvision:mobilenet_v3_small". None for the
            recipe's.
        labels: images that keep their label, the same number of each class; None for all.
        seed: of the labels, order and views, and of the weights of networks made by name.
        steps: training steps; None for the recipe's.
        device: "cpu", "cuda", "cuda:1"; None for CUDA where it can be used.
        data_dir: root of named data sets; None for $FASTSSL_DATA, else the user's cache.
        init: folder of a finished run whose networks this one starts from.
        settings: any other value of the configuration by dotted key, {"optim.lr": 0.02}; run.json
            lists them.
        out: the run's folder; None for runs/ALGORITHM-DATA-LABELS-SEED.
        resume: go on with the run in the folder; `network` is needed again if it is a module.
        overwrite: replace the run in the folder.
        download: fetch what is missing of a named data set.

    Raises:
        InputError: an argument that is not possible, in one line.
        DivergedError: the loss is no longer finite.
        StoppedError: Ctrl-C; the run is saved, `resume` goes on with it.
    """
    from fastssl.reporting.curves import draw_curves  # matplotlib; predicting needs none of it
    from fastssl.reporting.page import write_report

    given = {
        "data.labels": labels,
        "data.data_dir": _absolute(data_dir),
        "seed": seed,
        "steps": steps,
        "device": device,
        "init": _absolute(init),
    }
    module = network if isinstance(network, nn.Module) else None
    changes = {key: value for key, value in given.items() if value is not None}
    changes |= model_settings(network) | (settings or {})
    source = resolve_source(str(data))
    config = configure(algorithm, source, changes)
    path = default_folder(config) if out is None else Path(out)
    if resume:
        run = runs.resume(path, algorithm, {"data.source": source} | changes, module=module)
    else:
        run = runs.start(config, path, module=module, overwrite=overwrite, download=download)
    runs.fit(run)
    draw_curves([run.folder], run.folder.curves_png)
    write_report([run.folder], run.folder.report_html)
    return Classifier(trained_by(run.experiment), path, trained_here=run.experiment)


def load(
    run: PathName,
    *,
    network: nn.Module | None = None,
    device: str | None = None,
    data_dir: PathName | None = None,
    checkpoint: str = "last",
) -> Classifier:
    """The classifier of a run's folder, from one of its checkpoints; its data need not be there.

    Args:
        run: the folder.
        network: a module of the same class as the run's, if it trained one of its user's own: the
            folder holds its weights, not its code.
        device: "cpu", "cuda", "cuda:1"; None for the run's own, or the CPU if that is not here.
        data_dir: where the run's named data set is now, if not where it was, for `accuracies`.
        checkpoint: "last", "best" on the validation part, or a step.

    Raises:
        InputError: not a run folder, no such checkpoint or a damaged one, no such device, or the
            module is missing or another one.
    """
    trained = open_trained(Path(run), device, module=network, checkpoint=checkpoint)
    return Classifier(trained, Path(run), _absolute(data_dir))


def model_settings(network: nn.Module | str | None) -> dict[str, Any]:
    """The configuration of a network in place of the recipe's, by dotted key; none for None."""
    if network is None:
        return {}
    own = isinstance(network, nn.Module)
    name = f"{OWN_MODULE}{type(network).__name__}" if own else network
    return {f"model.{field.name}": None for field in fields(ModelConfig)} | {"model.name": name}


def default_folder(config: Config) -> Path:
    """runs/ALGORITHM-DATA-LABELS-SEED."""
    labels = "all" if config.data.labels is None else config.data.labels
    data = short_name(config.data.source)
    return Path("runs") / f"{config.algorithm_name}-{data}-{labels}-{config.seed}"


def _absolute(path: PathName | None) -> str | None:
    """A path that leads to the same place from another folder."""
    return None if path is None else str(Path(path).expanduser().absolute())

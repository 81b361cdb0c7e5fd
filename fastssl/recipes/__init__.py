"""Settings worth running, and the one place where data, model and algorithm meet."""

from fastssl.data.sources import SOURCES
from fastssl.errors import InputError
from fastssl.recipes import ccn, digits, images, mnist
from fastssl.recipes.config import Config

__all__ = ["RECIPES", "recipe"]

SMALL = {"digits": digits, "mnist": mnist}
RECIPES = (*SMALL, "two_spirals", *images.NETWORKS)  # the named data sets that there is one for


def recipe(algorithm: str, data: str, image_size: int | None = None, device: str = "cpu") -> Config:
    """The configuration of an algorithm on a data set, a name or the path of a folder.

    What suits a folder depends on its images, on the kind of device ("cpu" or "cuda") and on the
    `image_size` they are resized to, if that is given.

    Raises:
        InputError: there is none yet for the two.
    """
    is_ccn = algorithm.startswith("ccn")
    settings = ccn.SETTINGS if is_ccn else (*SMALL, *images.NETWORKS)
    if data in settings:
        if is_ccn:
            return ccn.recipe(data, algorithm)
        return SMALL[data].recipe(algorithm) if data in SMALL else images.recipe(data, algorithm)
    if data not in SOURCES:
        kind = ccn if is_ccn else images
        return kind.folder_recipe(data, algorithm, image_size, device)
    raise InputError(
        f"data: no recipe for {algorithm} on {data} yet; there are {', '.join(settings)}"
    )

"""Settings worth running, and the one place where data, model and algorithm meet."""

from fastssl.data.sources import SOURCES
from fastssl.errors import InputError
from fastssl.recipes import ccn, digits, images
from fastssl.recipes.config import Config

__all__ = ["RECIPES", "recipe"]

RECIPES = ("digits", "two_spirals", *images.NETWORKS)  # the named data sets that there is one for


def recipe(algorithm: str, data: str, image_size: int | None = None) -> Config:
    """The configuration of an algorithm on a data set, a name or the path of a folder.

    A folder's images are resized to `image_size`, if it is given, and its views are scaled to it.

    Raises:
        InputError: there is none yet for the two.
    """
    if algorithm.startswith("ccn"):
        settings: tuple[str, ...] = tuple(ccn.SETTINGS)
        if data in settings:
            return ccn.recipe(data, algorithm)
    else:
        settings = ("digits", *images.NETWORKS)
        if data == "digits":
            return digits.recipe(algorithm)
        if data in images.NETWORKS:
            return images.recipe(data, algorithm)
        if data not in SOURCES:
            return images.folder_recipe(data, algorithm, image_size)
    raise InputError(
        f"data: no recipe for {algorithm} on {data} yet; there are {', '.join(settings)}"
    )

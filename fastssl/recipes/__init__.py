"""Settings worth running, and the one place where data, model and algorithm meet."""

from collections.abc import Callable
from functools import partial

from fastssl.data.sources import SOURCES
from fastssl.errors import InputError
from fastssl.recipes import digits, images
from fastssl.recipes.config import Config

__all__ = ["RECIPES", "recipe_for"]

RECIPES: dict[str, Callable[[str], Config]] = {
    "digits": digits.recipe,
    **{name: partial(images.recipe, name) for name in images.NETWORKS},
}


def recipe_for(data: str) -> Callable[[str], Config]:
    """What makes the configuration of an algorithm on a data set, a name or the path of a folder.

    Raises:
        InputError: there is none yet for that name.
    """
    if data in RECIPES:
        return RECIPES[data]
    if data in SOURCES:
        raise InputError(f"data: no recipe for {data} yet; there are {', '.join(RECIPES)}")
    return partial(images.folder_recipe, data)

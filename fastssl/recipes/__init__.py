"""Settings worth running, and the one place where data, model and algorithm meet."""

from collections.abc import Callable

from fastssl.recipes import digits
from fastssl.recipes.config import Config

__all__ = ["RECIPES"]

RECIPES: dict[str, Callable[[str], Config]] = {"digits": digits.recipe}

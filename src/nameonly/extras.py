"""Packages that only some methods need, asked for when they are needed."""

import importlib
from typing import Any


def import_extra(module: str, package: str, extra: str) -> Any:
    """Return an optional module.

    Args:
        module: Its name.
        package: The package that it is in.
        extra: The extra of nameonly that installs it.

    Raises:
        ValueError: If it is not installed, or does not work here.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"the package {package} is needed ({error}): pip install 'nameonly[{extra}]'"
        ) from error
    except Exception as error:  # a torchvision that does not fit torch raises RuntimeError
        raise ValueError(
            f"the package {module} does not work here ({str(error).splitlines()[0]}); "
            "`nameonly doctor` says whether torchvision fits torch"
        ) from error

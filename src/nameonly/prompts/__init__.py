"""Stage: class names become sentences, without gradients.

A method is one file with one frozen dataclass: its fields are the hyper-parameters, its one verb is
``texts``. A backbone encodes the sentences of a class and their mean is the class's text weight.
"""

from typing import Protocol, runtime_checkable

from nameonly.types import LabelSpace


@runtime_checkable
class Prompts(Protocol):
    """Writes the sentences that stand for every class."""

    def texts(self, label_space: LabelSpace) -> list[list[str]]:
        """Return c lists, each with at least one sentence, in the order of the classes."""
        ...

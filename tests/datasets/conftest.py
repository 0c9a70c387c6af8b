"""Miniature data sets and their descriptions with the numbers of the miniature."""

from dataclasses import replace

import miniatures
import pytest


@pytest.fixture
def build(tmp_path):
    """Write a miniature; return its description and what a reader should find."""
    from nameonly.datasets.descriptions import describe
    from nameonly.datasets.layouts import DrawnSplit

    def write(name, root=tmp_path):
        root.mkdir(exist_ok=True)
        m = miniatures.Miniature(root)
        getattr(miniatures, name)(m)
        description = describe(name)
        layout, n = description.layout, {k: len(v) for k, v in m.truth.items()}
        if isinstance(layout, DrawnSplit):
            side = "train_per_class" if layout.train_per_class else "test_per_class"
            layout = replace(layout, **{side: 2})
            drawn = 2 * len(m.classes)
            rest = n["drawn"] - (0 if layout.leak else drawn)
            n = (
                {"train": drawn, "test": rest}
                if side[:5] == "train"
                else {"train": rest, "test": drawn}
            )
        sizes = {"n_classes": len(m.classes), "n_train": n.get("train", 0), "n_test": n["test"]}
        return replace(description, layout=layout, **sizes), m

    return write


@pytest.fixture
def refuse(tmp_path):
    """Open what must be refused, and return the message."""
    from nameonly.datasets.reading import open_dataset

    def message(description, root=tmp_path, **options):
        with pytest.raises(ValueError) as caught:
            open_dataset(description, root, **options)
        return str(caught.value)

    return message

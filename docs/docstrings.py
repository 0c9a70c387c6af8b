"""Extension of the site's API pages: the keys of this package's docstrings as paragraphs."""

import re
from typing import Any

from griffe import Extension

# "Paper: ..." with indented lines after it would otherwise be read as a box to unfold
KEY = re.compile(r"^(Papers?|Code|Differs|Stage): (.+(?:\n[ ]+\S.*)*)", re.M)


class Keys(Extension):
    """Writes them out."""

    def on_module(self, *, mod: Any, **_: Any) -> None:
        """Make each key of a module a paragraph."""
        if mod.docstring:
            mod.docstring.value = KEY.sub(
                lambda key: f"\n**{key[1]}:** {' '.join(key[2].split())}\n", mod.docstring.value
            )

    def on_class(self, *, cls: Any, **_: Any) -> None:
        """Show the keys of a dictionary as what they are to a reader: attributes."""
        if cls.docstring:
            cls.docstring.value = re.sub(r"^Keys:$", "Attributes:", cls.docstring.value, flags=re.M)

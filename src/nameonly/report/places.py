"""Places in a finished page that are filled later."""

from collections.abc import Mapping

from markupsafe import Markup


def empty_place(name: str) -> Markup:
    """Return a place to put into a page, once."""
    return Markup("").join(_marks(name))


def fill_places(page: str, contents: Mapping[str, Markup]) -> str:
    """Return the page with places filled; what was in them before goes.

    Args:
        page: HTML in which everything from outside is escaped, so that it holds no mark.
        contents: Of the places, by name.

    Raises:
        ValueError: If the page does not hold each place once.
    """
    for name, content in contents.items():
        begin, end = _marks(name)
        head, *middle = page.split(begin)
        _, *tail = (middle[0] if middle else "").split(end)
        if len(middle) != 1 or len(tail) != 1 or end in head:
            raise ValueError(f"the page does not hold the place {name!r} once")
        page = f"{head}{begin}{content}{end}{tail[0]}"
    return page


def _marks(name: str) -> tuple[Markup, Markup]:
    return Markup(f"<!-- begin {name} -->"), Markup(f"<!-- end {name} -->")

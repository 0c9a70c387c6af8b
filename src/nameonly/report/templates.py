"""The templates of the pages."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from nameonly.report.places import empty_place
from nameonly.report.wording import clean, counted, shortened


def environment() -> Environment:
    """Return the page templates, with everything from outside escaped."""
    environment = Environment(
        loader=PackageLoader("nameonly", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=clean,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shortened"] = shortened
    environment.globals["counted"] = counted
    environment.globals["empty_place"] = empty_place
    return environment

"""Hook of the site: pages that lie outside docs/ become pages of it, and links follow them."""

import re
from os.path import normpath, relpath
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
OUTSIDE = ("C*.md", "benchmarks/results/*.md", "examples/*/*.md", "src/nameonly/tiny/*.md")
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)[^)#\s]+")


def on_files(files: Any, config: Any) -> None:
    """Add them, under ``repository/``."""
    for path in sorted(p for pattern in OUTSIDE for p in ROOT.glob(pattern)):
        name = "repository" / path.relative_to(ROOT)
        files.append(File.generated(config, name.as_posix(), abs_src_path=str(path)))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links between files of the repository into links between pages."""
    uri = Path(page.file.src_uri)
    here = Path("docs", uri) if uri.parts[0] != "repository" else uri.relative_to("repository")

    def moved(link: re.Match[str]) -> str:
        target = Path(normpath(here.parent / link[0]))
        target = target / "README.md" if (ROOT / target).is_dir() else target
        place = target.relative_to("docs") if target.parts[0] == "docs" else "repository" / target
        return relpath(place, uri.parent)

    return LINK.sub(moved, markdown)

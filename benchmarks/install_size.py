"""What an installation adds to torch: packages and megabytes, beside peers.

uv run python benchmarks/install_size.py

Each is resolved anew for this Python and platform. What torch itself brings is taken out of every
list, the rest is installed without its dependencies, and the files are counted as they lie there.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from results import write

ROOT = Path(__file__).parents[1]
PROJECTS = {
    "nameonly": str(ROOT),
    "nameonly[serve]": f"nameonly[serve] @ {ROOT.as_uri()}",
    "nameonly[synth]": f"nameonly[synth] @ {ROOT.as_uri()}",
    "nameonly[train]": f"nameonly[train] @ {ROOT.as_uri()}",
    "open_clip": "open_clip_torch",
    "autodistill-clip": "autodistill-clip",
    "fiftyone": "fiftyone",
}


def uv(*arguments: str, said: str = "") -> str:
    """Run uv and return what it printed."""
    done = subprocess.run(
        ["uv", *arguments], input=said, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done.stdout


def resolved(requirement: str) -> dict[str, str]:
    """Return the packages that a requirement brings, by name: as pinned."""
    options = ("--no-header", "--no-annotate", "--python", sys.executable, "--no-config")
    lines = uv("pip", "compile", "-", *options, said=requirement).splitlines()
    return {line.split("==")[0].split(" @ ")[0].strip(): line for line in lines if line.strip()}


def megabytes(packages: list[str]) -> float:
    """Return the size of the packages' files, compiled bytecode not counted."""
    with TemporaryDirectory() as folder:
        wanted = Path(folder, "wanted.txt")
        wanted.write_text("\n".join(packages))
        target = str(Path(folder, "site"))
        uv("pip", "install", "--no-deps", "--target", target, "-r", str(wanted), "--no-config")
        files = (path for path in Path(target).rglob("*") if path.is_file())
        return sum(p.stat().st_size for p in files if "__pycache__" not in p.parts) / 2**20


def main() -> None:
    """Measure and write the page."""
    torch = resolved("torch")
    figures: dict[str, float] = {}
    rows = []
    for name, requirement in PROJECTS.items():
        found = resolved(requirement)
        beyond = [pinned for package, pinned in found.items() if package not in torch]
        size = megabytes(beyond)
        version = found.get(name.split("[")[0].replace("open_clip", "open-clip-torch"), "")
        shown = f"{name} {version.partition('==')[2]}".strip()
        rows.append(
            f"| {shown} | {len(beyond)} | {size:,.0f} | {'yes' if 'torch' in found else 'no'} |"
        )
        figures |= {f"{name} packages": len(beyond), f"{name} MB": size}
        print(rows[-1], flush=True)
    write(
        "install_size",
        figures,
        [
            "Packages and megabytes beyond what torch and its own dependencies take, each project "
            f"itself included. Torch by itself: {len(torch)} packages.",
            "",
            "| | packages | MB | needs torch |",
            "| --- | ---: | ---: | --- |",
            *rows,
        ],
    )


if __name__ == "__main__":
    main()

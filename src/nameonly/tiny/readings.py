"""Read the bundled model on the handwritten digits; no reading goes unlogged.

``python -m nameonly.tiny.readings`` scores all digits and appends a row to ``READINGS.md``, then
prints the figure. Nothing may be trained, stopped or chosen by these figures.
"""

import argparse
import datetime
import hashlib
from pathlib import Path

from nameonly.tiny import MODEL
from nameonly.tiny.clip_files import folder_logits
from nameonly.tiny.digits import CLASS_NAMES, load_digits_images

LOG = Path(__file__).parent / "READINGS.md"


def read_digits(folder: Path, template: str, log: Path = LOG) -> float:
    """Return zero-shot accuracy on all 1,797 digits and append it to the log.

    Args:
        folder: A model folder.
        template: A sentence with one ``{}``, filled with the words zero to nine.
        log: A Markdown table with the columns date, model, template, accuracy and n.

    Raises:
        ValueError: If the template has not exactly one ``{}``.
        FileNotFoundError: If there is no log.
    """
    if template.count("{}") != 1:
        raise ValueError(f"a template has exactly one {{}}, got {template!r}")
    images, labels, _ = load_digits_images()
    with log.open("a", encoding="utf-8") as file:
        logits = folder_logits(folder, images, [template.format(name) for name in CLASS_NAMES])
        accuracy = float((logits.argmax(dim=1).numpy() == labels).mean())
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        model = weights_digest(folder)
        file.write(f"| {today} | {model} | {template} | {accuracy:.4f} | {len(labels)} |\n")
    return accuracy


def weights_digest(folder: Path) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of the weights file."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16]


def main() -> None:
    """Read the bundled model once."""
    parser = argparse.ArgumentParser(prog="python -m nameonly.tiny.readings", description=__doc__)
    parser.add_argument("--template", default="a photo of a {}.")
    print(f"{read_digits(MODEL, parser.parse_args().template):.4f}")


if __name__ == "__main__":
    main()

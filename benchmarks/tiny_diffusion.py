"""Does the bundled text-to-image model draw what it is asked for, in the style asked for?

uv run python benchmarks/tiny_diffusion.py [--per-class 50] [--work DIR]

Its images are read by two that did not train it: the bundled CLIP (whose text tower it hears), and
a small network that this file trains on glyphs of another seed, in fonts that neither saw, for
classes and styles alike. Writes the figures, and the contact sheet of the documentation.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from results import write
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from nameonly.images import load
from nameonly.loop import Schedule, minimise
from nameonly.synthesis.prompt_tricks import PromptTricks
from nameonly.synthesis.text_to_image import TextToImage
from nameonly.tiny import MODEL, glyphs
from nameonly.tiny.clip_files import folder_logits
from nameonly.tiny.glyph_set import GlyphSet, render_set
from nameonly.tiny.pair_loss import chance_of, move_images
from nameonly.types import LabelSpace

DIGITS = LabelSpace(glyphs.DIGIT_NAMES)
SCALES = (1.0, 2.0, 3.0, 5.0, 7.5)
# as they stand in captions; "dark" and "bright" are left out: they differ by tone alone
STYLES = (
    *("bold", "thin", "italic", "hand-drawn", "outlined", "rotated", "small", "large"),
    *("inverted", "faint", "pixelated", "blurred", "noisy"),
)
TEMPLATE = "a photo of a {}."
SHEET = Path(__file__).parents[1] / "docs" / "images" / "tiny_diffusion.png"


class Reader(nn.Module):
    """A small network that tells class and styles of a glyph."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in ((1, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU()]
            layers += [nn.Conv2d(b, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.classes = nn.Linear(128 * 16, len(glyphs.CLASS_NAMES))
        self.styles = nn.Linear(128 * 16, len(glyphs.STYLES))

    def forward(self, pixels: Float[Tensor, "b 1 32 32"]) -> tuple[Tensor, Tensor]:
        """Return logits of classes and of styles."""
        seen = self.body(pixels)
        return self.classes(seen), self.styles(seen)


def train_reader(n: int, epochs: int, work: Path) -> tuple[Reader, float]:
    """Return a reader trained on all fonts, and its accuracy on other glyphs' digits."""
    data = render_set(n, tuple(glyphs.FONTS), 7_000_001, work)
    torch.manual_seed(1)
    reader = Reader()

    def loss(rows: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(chance_of(rows, 1))
        classes, styles = reader(move_images(data.images[rows], generator)[:, :1])
        return cross_entropy(classes, data.labels[rows]) + binary_cross_entropy_with_logits(
            styles, data.seen[rows].float()
        )

    schedule = Schedule(epochs, 128, 2e-3, 0.5, weight_decay=0.01)
    minimise(loss, list(reader.parameters()), n, schedule, seed=1)
    reader.eval()
    return reader, held_out(reader, render_set(2_000, tuple(glyphs.FONTS), 7_000_002, work))


@torch.no_grad()
def held_out(reader: Reader, data: GlyphSet) -> float:
    """Return the share of a set's digits that are recognised among ten."""
    digits = data.labels < len(DIGITS)
    logits, _ = reader(data.images[digits][:, None].float() / 127.5 - 1)
    found = logits[:, : len(DIGITS)].argmax(dim=1)
    return (found == data.labels[digits]).float().mean().item()


@torch.no_grad()
def read(reader: Reader, images: list[Image.Image]) -> tuple[Tensor, Tensor]:
    """Return the class among ten digits, and the probability of every style."""
    grey = np.stack([np.asarray(image.convert("L")) for image in images])
    classes, styles = reader(torch.from_numpy(grey)[:, None].float() / 127.5 - 1)
    return classes[:, : len(DIGITS)].argmax(dim=1), styles.sigmoid()


def draw(tricks: PromptTricks, per_class: int, folder: Path) -> tuple[list[Image.Image], Tensor]:
    """Return images of every digit and what they shall be."""
    generator = TextToImage("tiny", steps=20, batch_size=50, dtype="float32", device="cpu")
    made = generator.generate(tricks.requests(DIGITS, per_class), folder)
    return [load(made.images, i) for i in range(len(made))], made.labels(DIGITS)


def recognition(reader: Reader, per_class: int, work: Path) -> list[dict[str, float]]:
    """Return the share of recognised digits at every guidance scale."""
    rows = []
    texts = [TEMPLATE.format(name) for name in glyphs.CLASS_NAMES]
    for scale in SCALES:
        tricks = PromptTricks(("base",), template=TEMPLATE, guidance_scale=scale)
        images, labels = draw(tricks, per_class, work / f"guidance-{scale}")
        logits = folder_logits(MODEL, images, texts)
        among_ten = logits[:, : len(DIGITS)].argmax(dim=1)
        rows.append(
            {
                "guidance": scale,
                "clip": (among_ten == labels).float().mean().item(),
                "clip among 36": (logits.argmax(dim=1) == labels).float().mean().item(),
                "reader": (read(reader, images)[0] == labels).float().mean().item(),
            }
        )
        print(rows[-1], flush=True)
    return rows


def obedience(reader: Reader, per_class: int, work: Path) -> list[dict[str, object]]:
    """Return how often the reader sees a style with its word and without."""
    plain = PromptTricks(("base",), template=TEMPLATE, guidance_scale=3.0)
    _, without = read(reader, draw(plain, per_class, work / "guidance-3.0")[0])
    rows = []
    for style in STYLES:
        tricks = PromptTricks(("base",), template=f"a {style} {{}}", guidance_scale=3.0)
        images, labels = draw(tricks, max(1, per_class // 2), work / style)
        found, seen = read(reader, images)
        column = glyphs.STYLES.index(style)
        rows.append(
            {
                "style": style,
                "with": (seen[:, column] > 0.5).float().mean().item(),
                "without": (without[:, column] > 0.5).float().mean().item(),
                "reader": (found == labels).float().mean().item(),
            }
        )
        print(rows[-1], flush=True)
    return rows


def contact_sheet(work: Path, path: Path, zoom: int = 2) -> None:
    """Write one picture: a row a style, a column a digit."""
    side, left = 32 * zoom, 110
    styles = ("(no style)", *STYLES)
    sheet = Image.new("RGB", (left + 10 * side, len(styles) * side), "white")
    pen = ImageDraw.Draw(sheet)
    for row, style in enumerate(styles):
        folder = work / ("guidance-3.0" if row == 0 else style) / "images"
        pen.text((4, row * side + side // 2 - 6), style, fill="black")
        for column, name in enumerate(DIGITS.class_names):
            with Image.open(folder / name / "00000.webp") as image:
                sheet.paste(image.resize((side, side), 0), (left + column * side, row * side))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)


def main() -> None:
    """Draw, read, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-class", type=int, default=50)
    parser.add_argument("--work", type=Path, default=Path("runs/tiny_diffusion"))
    args = parser.parse_args()
    torch.set_num_threads(2)
    begun = time.monotonic()
    reader, own = train_reader(20_000, 6, args.work)
    print(f"reader: {own:.4f} right, {time.monotonic() - begun:.0f} s", flush=True)
    by_scale = recognition(reader, args.per_class, args.work)
    by_style = obedience(reader, args.per_class, args.work)
    contact_sheet(args.work, SHEET)
    lines = [
        f"{10 * args.per_class} digits a guidance scale, half as many a style; 20 DDIM steps. The",
        f"reader itself recognises {100 * own:.1f} % of rendered digits that it never saw.",
        "",
        "| guidance | tiny CLIP, ten digits | tiny CLIP, 36 classes | reader, ten digits |",
        "| ---: | ---: | ---: | ---: |",
        *(
            f"| {r['guidance']:g} | {100 * r['clip']:.1f} | {100 * r['clip among 36']:.1f} | "
            f"{100 * r['reader']:.1f} |"
            for r in by_scale
        ),
        "",
        "How often the reader sees a style, percent: asked for at guidance 3, and not asked for.",
        "",
        "| style | asked for | not asked for | digit recognised |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {r['style']} | {100 * float(r['with']):.1f} | {100 * float(r['without']):.1f} | "
            f"{100 * float(r['reader']):.1f} |"
            for r in by_style
        ),
    ]
    figures = {"reader on glyphs": own}
    for r in by_scale:
        figures |= {f"guidance {r['guidance']:g}, {k}": r[k] for k in ("clip", "reader")}
    for r in by_style:
        figures |= {f"{r['style']}, {k}": float(r[k]) for k in ("with", "without")}
    write("tiny_diffusion", figures, lines)


if __name__ == "__main__":
    main()

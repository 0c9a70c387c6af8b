"""Prompt tricks: class names become diverse requests for synthetic images (MA-ZSC).

Paper: Shipard, Wiliem, Thanh, Xiang, Fookes. Diversity is Definitely Needed: Improving
    Model-Agnostic Zero-shot Classification via Stable Diffusion. CVPR Workshops 2023,
    arXiv 2302.03298, section 3.2.
Code: https://github.com/Jaidon-Smith/Diversity-is-Definitely-Needed
Differs: equal shares are dealt in turn, so that the first M images of a class are those of a run
    that asks for M; seeds and draws follow from class name and number, so that neither the order
    of classes nor their number changes an image. ``descriptions`` is ours: the label space's own
    sentences as prompts, as CuPL (arXiv 2209.03320) has them for text weights.
"""

import hashlib
import math
from dataclasses import dataclass

from nameonly.synthetic import ImageRequest
from nameonly.types import LabelSpace

__all__ = ["PromptTricks"]

PAPER = ("base", "class_prompt", "multi_domain", "random_guidance")
TRICKS = (*PAPER, "descriptions")
DOMAINS = (
    *("photo", "drawing", "painting", "sketch", "collage", "poster", "digital art image"),
    *("rock drawing", "stick figure", "3D rendering"),
)


def draw(*facts: object) -> int:
    """Return a number below 2^31 that follows from the facts and from nothing else."""
    digest = hashlib.sha256("\x1f".join(map(str, facts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


@dataclass(frozen=True)
class PromptTricks:
    """Asks for equal shares of every trick.

    Attributes:
        tricks: Of ``base`` (the template at the usual guidance), ``class_prompt`` (the bare name),
            ``multi_domain`` (the domains in turn), ``random_guidance`` (the template at a guidance
            drawn for every image), ``descriptions`` (the label space's own sentences); ``merged``
            stands for the first four.
        template: Sentence of ``base`` and ``random_guidance``, with one ``{}`` for the name.
        domains: What ``multi_domain`` puts before the name.
        domain_template: Its sentence: the first ``{}`` is the domain, the second the name.
        guidance_scale: The usual one.
        guidance_choices: What ``random_guidance`` draws from.
        seed: Of noise and draws.
    """

    tricks: tuple[str, ...] = ("merged",)
    template: str = "an image of a {}"
    domains: tuple[str, ...] = DOMAINS
    domain_template: str = "a {} of a {}"
    guidance_scale: float = 7.5
    guidance_choices: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0)
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [trick for trick in self.tricks if trick not in (*TRICKS, "merged")]
        if unknown or not self.tricks:
            raise ValueError(
                f"there is no trick {', '.join(map(repr, unknown)) or '()'}; take one or several "
                f"of {', '.join(TRICKS)}, or merged for the first {len(PAPER)}"
            )
        for name, gaps in (("template", 1), ("domain_template", 2)):
            if getattr(self, name).count("{}") != gaps:
                raise ValueError(f"{name} has {gaps} {{}}, got {getattr(self, name)!r}")
        if not all(0 <= s < math.inf for s in (self.guidance_scale, *self.guidance_choices)):
            raise ValueError("guidance scales and choices must not be negative, infinite or NaN")
        for name in ("domains", "guidance_choices"):
            if not getattr(self, name):
                raise ValueError(f"{name} needs at least one, got none")

    @property
    def describes(self) -> bool:
        """Whether the label space's own sentences are prompts."""
        return "descriptions" in self.tricks

    def requests(self, label_space: LabelSpace, images_per_class: int) -> tuple[ImageRequest, ...]:
        """Return the requests of every class, class by class.

        Raises:
            ValueError: If less than one image a class is asked for, or a class has no description
                and ``descriptions`` is among the tricks.
        """
        if images_per_class < 1:
            raise ValueError(f"images_per_class must be at least 1, got {images_per_class}")
        merged = [t for trick in self.tricks for t in (PAPER if trick == "merged" else (trick,))]
        tricks = tuple(dict.fromkeys(merged))
        found = []
        for i, name in enumerate(label_space.class_names):
            sentences = label_space.descriptions[i] if label_space.descriptions else ()
            if self.describes and not sentences:
                raise ValueError(
                    f"the class {name!r} has no description to make images of; add one to the "
                    "class file, or leave the trick 'descriptions' out"
                )
            for number in range(images_per_class):
                trick, turn = tricks[number % len(tricks)], number // len(tricks)
                prompt, scale = self._prompt(name, trick, turn, sentences)
                seed = draw(self.seed, name, number)
                found.append(ImageRequest(name, number, prompt, trick, scale, seed))
        return tuple(found)

    def _prompt(
        self, name: str, trick: str, turn: int, sentences: tuple[str, ...]
    ) -> tuple[str, float]:
        """Return the text and guidance of a trick's next image of a class."""
        if trick == "class_prompt":
            return name, self.guidance_scale
        if trick == "descriptions":
            return sentences[turn % len(sentences)], self.guidance_scale
        if trick == "multi_domain":
            before, between, after = self.domain_template.split("{}")
            domain = self.domains[turn % len(self.domains)]
            return f"{before}{domain}{between}{name}{after}", self.guidance_scale
        prompt = self.template.replace("{}", name)
        if trick == "base":
            return prompt, self.guidance_scale
        choice = draw(self.seed, name, turn, "guidance") % len(self.guidance_choices)
        return prompt, float(self.guidance_choices[choice])

"""Sentence templates filled with the class name.

Paper: Radford et al. Learning Transferable Visual Models From Natural Language Supervision.
    ICML 2021. https://arxiv.org/abs/2103.00020, section 3.1.4.
Code: https://github.com/openai/CLIP
Differs: texts and descriptions that the label space brings are used beside the templates, and every
    sentence of a class has the same weight, as CuPL+e does (Pratt et al. What does a platypus look
    like? ICCV 2023. https://arxiv.org/abs/2209.03320).
"""

from dataclasses import dataclass
from importlib import resources

from nameonly.types import LabelSpace

__all__ = ["Templates"]

SINGLE = ("a photo of a {}.",)
OPENAI7 = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
SETS = ("single", "openai7", "openai80")


def template_set(name: str) -> tuple[str, ...]:
    """Return a named set: one template, or the 7 or 80 that the paper's code has for ImageNet.

    Raises:
        ValueError: If there is no set of that name.
    """
    if name == "single":
        return SINGLE
    if name == "openai7":
        return OPENAI7
    if name.count("{}") == 1:
        return (name,)
    if name == "openai80":
        file = resources.files("nameonly.prompts").joinpath("openai80.txt")
        return tuple(file.read_text(encoding="utf-8").splitlines())
    raise ValueError(
        f"there is no set of templates {name!r}; take one of {', '.join(SETS)}, "
        "or give your own sentences with one {} each"
    )


def fill(template: str, class_name: str) -> str:
    """Put the class name into every ``{}``; braces in the name itself stay as they are."""
    return template.replace("{}", class_name)


@dataclass(frozen=True)
class Templates:
    """Fills every template with every class name.

    Attributes:
        templates: ``"single"``, ``"openai7"``, ``"openai80"``, or your own sentence, or several,
            with one ``{}`` each. Templates of a label space go before these, its
            texts of one class before both.
    """

    templates: str | tuple[str, ...] = "single"

    def __post_init__(self) -> None:
        if isinstance(self.templates, str):
            template_set(self.templates)
            return
        if not self.templates:
            raise ValueError("templates needs at least one sentence, got none")
        for template in self.templates:
            if template.count("{}") != 1:
                raise ValueError(f"a template has exactly one {{}}, got {template!r}")

    def texts(self, label_space: LabelSpace) -> list[list[str]]:
        """Return per class its own texts or the filled templates, then its descriptions."""
        own = self.templates
        method_templates = template_set(own) if isinstance(own, str) else own
        templates = label_space.templates or method_templates
        texts = []
        for i, name in enumerate(label_space.class_names):
            prompts = label_space.prompts[i] if label_space.prompts else ()
            descriptions = label_space.descriptions[i] if label_space.descriptions else ()
            texts.append([fill(t, name) for t in prompts or templates] + list(descriptions))
        return texts

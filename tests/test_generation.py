"""The command ``generate`` from class names to a filtered folder."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from diffusion_models import CLASSES, generator
from PIL import Image
from safetensors.torch import save_file

from nameonly import generating, generation
from nameonly.backbones.clip import ClipBackbone
from nameonly.generation import Generation, Wanted, configured, generate
from nameonly.journal import Journal
from nameonly.loop import Schedule
from nameonly.synthesis._adaptation import lora_id
from nameonly.synthesis.domain_lora import DomainLora
from nameonly.synthesis.filter import Filter
from nameonly.synthesis.prompt_tricks import PromptTricks
from nameonly.synthetic import UNASKED, read_synthetic, read_table, summary, write_table

LORA = "lora/pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def photos(all_digits, tmp_path_factory):
    """Thirty digits in a folder."""
    folder = tmp_path_factory.mktemp("photos")
    for row in range(30):
        with Image.open(all_digits[0] / f"digit-{row:04d}.png") as image:
            image.save(folder / f"{row}.png")
    return folder


@pytest.fixture
def parts(model):
    return Generation(
        prompt_tricks=PromptTricks(("base", "class_prompt")),
        text_to_image=generator(model),
        domain_lora=DomainLora(2, schedule=Schedule(2, 8, 1e-2), dtype="float32", flip=False),
    )


def backbone():
    return ClipBackbone("tiny", device="cpu", dtype="float32")


def wanted(tmp_path, **fields):
    return Wanted(
        **{"label_space": CLASSES, "images_per_class": 3, "cache": tmp_path / "c", **fields}
    )


def test_without_images_to_adapt_to(parts, tmp_path):
    made = generate(wanted(tmp_path), parts, tmp_path / "out")
    assert len(made) == 9 and not (tmp_path / "out" / "lora").exists()
    found = summary(tmp_path / "out")
    assert found["kept"] == found["asked_for"] == 9 and found["lora"] == ""
    assert found["classes"] == {"zero": 3, "one": 3, "seven": 3}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "9 images" in page and "No backbone looked at them" in page
    assert not (tmp_path / "out" / "worth.json").exists()


def test_adapted_to_images_and_filtered(parts, photos, tmp_path):
    out = tmp_path / "out"
    asked = wanted(tmp_path, adapt_to=photos, backbone=backbone())
    made = generate(asked, replace(parts, filter=Filter(share=0.5)), out)
    rows = read_table(out)
    assert len(made) == 6 and sum(not row["kept"] for row in rows) == 3
    assert {row["lora"] for row in rows} != {""}
    assert all(0 <= row["agreement"] <= 1 for row in rows)
    assert summary(out)["dropped"] == {"not among the best 2 of 3": 3}
    worth = json.loads((out / "worth.json").read_text())
    assert worth["all"]["n"] == 6 and worth["all"]["n_real"] == 30
    assert set(worth["tricks"]) <= {"base", "class_prompt"} and set(worth["classes"]) == set(
        CLASSES.class_names
    )
    page = (out / "report.html").read_text()
    assert "Coverage" in page and "Before and after adaptation" in page
    plain = generate(wanted(tmp_path), parts, tmp_path / "plain")
    one, other = made.images.sources[0], plain.images.sources[0]
    assert (out / one).read_bytes() != (tmp_path / "plain" / other).read_bytes()


def test_the_page_tells_what_the_adaptation_changed(parts, photos, tmp_path):
    """The same requests by the model as it is: its very images, measured trick by trick."""
    out = tmp_path / "out"
    asked = wanted(tmp_path, adapt_to=photos, backbone=backbone(), unadapted=2)
    generate(asked, replace(parts, filter=Filter(share=0.5)), out)
    plain = generate(wanted(tmp_path), parts, tmp_path / "plain")
    there = sorted(p.relative_to(out / "unadapted") for p in out.glob("unadapted/images/*/*"))
    assert len(there) == 6 and {p.stem for p in there} == {"00000", "00001"}
    for path in there:
        same = np.asarray(Image.open(out / "unadapted" / path)) - np.asarray(
            Image.open(tmp_path / "plain" / path)
        ).astype(int)
        assert abs(same).max() <= 2
    assert {row["lora"] for row in read_table(out / "unadapted")} == {""} and len(plain) == 9
    worth = json.loads((out / "worth.json").read_text())
    for key in ("before", "after"):
        assert worth[key]["all"]["n"] == 6, "also what the filter dropped"
        assert worth[key]["tricks"].keys() == {"base", "class_prompt"}
    assert worth["before"]["all"]["mmd"] != worth["after"]["all"]["mmd"]
    assert len(read_synthetic(out)[0]) == 6, "they are none of the images made"
    stamps = {path: (out / "unadapted" / path).stat().st_mtime_ns for path in there}
    generate(asked, parts, out)
    assert stamps == {path: (out / "unadapted" / path).stat().st_mtime_ns for path in there}


def test_nothing_is_drawn_unadapted_where_nobody_asks(parts, photos, tmp_path):
    asked = wanted(tmp_path, adapt_to=photos, backbone=backbone(), unadapted=0)
    assert generation.look(asked, parts, tmp_path / "out")["unadapted"] == 0
    generate(asked, parts, tmp_path / "out")
    assert not (tmp_path / "out" / "unadapted").exists()
    assert "before" not in json.loads((tmp_path / "out" / "worth.json").read_text())
    assert "Before and after" not in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(ValueError, match="unadapted must be at least 0, got -1"):
        wanted(tmp_path, unadapted=-1)


def test_a_class_that_is_not_there_unadapted_costs_no_page(parts, photos, tmp_path):
    out = tmp_path / "out"
    asked = wanted(tmp_path, adapt_to=photos, backbone=backbone(), unadapted=1)
    generate(asked, parts, out)
    rows = read_table(out / "unadapted")
    rows[2] |= {"made": False, "kept": False, "draws": parts.text_to_image.draws, "reason": "blank"}
    write_table(rows, out / "unadapted")
    generate(asked, parts, out)
    worth = json.loads((out / "worth.json").read_text())
    assert worth["before"]["all"]["n"] == worth["after"]["all"]["n"] == 2
    assert set(worth["before"]["classes"]) == {"zero", "one"} and worth["all"]["n"] == 9


def test_a_lora_is_not_silently_replaced(parts, photos, tmp_path):
    asked = wanted(tmp_path, adapt_to=photos, backbone=backbone())
    generate(asked, parts, tmp_path / "out")
    has = replace(
        parts, text_to_image=replace(parts.text_to_image, lora=str(tmp_path / "out/lora"))
    )
    for call in (generate, generation.look):
        with pytest.raises(ValueError, match="adapting the model trains a LoRA in its place"):
            call(asked, has, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    assert len(generate(wanted(tmp_path), has, tmp_path / "other")) == 9


def test_the_lora_is_trained_once_for_the_same_images(parts, photos, tmp_path):
    out = tmp_path / "out"
    asked = wanted(tmp_path, adapt_to=photos, backbone=backbone())
    generate(asked, parts, out)
    before = (out / LORA).stat().st_mtime_ns
    generate(replace(asked, images_per_class=4), parts, out)
    assert (out / LORA).stat().st_mtime_ns == before
    longer = replace(parts.domain_lora, schedule=Schedule(3, 8, 1e-2))
    with pytest.raises(ValueError, match="was trained on other images or with other settings"):
        generate(asked, replace(parts, domain_lora=longer), out)
    assert (out / LORA).stat().st_mtime_ns == before


def test_fewer_images_are_measured_filtered_and_shown_alone(parts, photos, tmp_path):
    """What an earlier call asked for stays in both folders, and counts nowhere."""
    out, sieve = tmp_path / "out", Filter(share=0.5)
    asked = wanted(tmp_path, adapt_to=photos, backbone=backbone(), unadapted=3)
    generate(asked, parts, out)
    before = {path: path.read_bytes() for path in out.rglob("*.webp")}
    made = generate(replace(asked, images_per_class=2), replace(parts, filter=sieve), out)
    assert before == {path: path.read_bytes() for path in out.rglob("*.webp")}
    assert len(made) == 3 and summary(out)["dropped"] == {"not among the best 1 of 2": 3}
    for folder in (out, out / "unadapted"):
        reasons = {row["path"]: row["reason"] for row in read_table(folder)}
        assert reasons.keys() == {
            p.relative_to(folder).as_posix() for p in (folder / "images").glob("*/*.webp")
        }
        assert [path for path, reason in reasons.items() if reason == UNASKED] == [
            f"images/{name}/00002.webp" for name in ("one", "seven", "zero")
        ]
    worth = json.loads((out / "worth.json").read_text())
    assert worth["all"]["n"] == 3 and worth["before"]["all"]["n"] == 6
    assert "<strong>3 images</strong> of 6 of" in (out / "report.html").read_text()


def test_an_adaptation_of_what_was_made_without_is_refused_at_once(parts, photos, tmp_path):
    out = tmp_path / "out"
    generate(wanted(tmp_path), parts, out)
    asked = wanted(tmp_path, adapt_to=photos, backbone=backbone())
    for call in (generate, generation.look):
        with pytest.raises(ValueError, match="made by the model as it is, and now it is to be ad"):
            call(asked, parts, out)
    assert not (out / "lora").exists() and not (out / "unadapted").exists()
    assert len(read_table(out)) == 9


def test_a_lora_of_somebody_is_never_overwritten(parts, photos, tmp_path):
    asked = wanted(tmp_path, adapt_to=photos, backbone=backbone(), unadapted=0)
    file = tmp_path / "out" / LORA
    file.parent.mkdir(parents=True)
    save_file({"unet.down.lora.up.weight": torch.zeros(2, 2)}, file)
    own = file.read_bytes()
    with pytest.raises(ValueError, match="was trained on other images or with other settings"):
        generate(asked, parts, tmp_path / "out")
    assert file.read_bytes() == own
    file.write_bytes(own[:20])
    generate(asked, parts, tmp_path / "out")
    assert file.read_bytes() != own[:20], "a damaged one is trained again"


def test_given_labels_caption_their_images(parts, photos, tmp_path):
    asked = wanted(tmp_path, adapt_to=photos, backbone=backbone())
    given = {f"{row}.png": "seven" for row in range(30)}
    for name, fields in (("free", {}), ("given", {"given": given})):
        generate(replace(asked, **fields), parts, tmp_path / name)
    assert lora_id(tmp_path / "free" / "lora") != lora_id(tmp_path / "given" / "lora")


def test_captions_see_no_truth(parts, all_digits, photos, tmp_path):
    """Class folders and file names that say the truth, or a lie, change nothing."""
    lie = tmp_path / "lie"
    for row in range(30):
        (lie / CLASSES.class_names[row % 3]).mkdir(parents=True, exist_ok=True)
        target = lie / CLASSES.class_names[row % 3] / f"{CLASSES.class_names[row % 3]}-{row}.png"
        target.write_bytes((photos / f"{row}.png").read_bytes())
    for name, images in (("plain", photos), ("lie", lie)):
        asked = wanted(tmp_path, adapt_to=images, backbone=backbone())
        generate(asked, parts, tmp_path / f"out-{name}")
    assert lora_id(tmp_path / "out-plain" / "lora") == lora_id(tmp_path / "out-lie" / "lora")


def test_a_class_that_the_filter_empties_is_told(parts, tmp_path):
    made = generate(wanted(tmp_path), parts, tmp_path / "out")
    for source in made.images.sources[:3]:
        (tmp_path / "out" / source).write_bytes(b"")
    with pytest.raises(ValueError, match="no synthetic image is left of 'zero'"):
        read_synthetic(tmp_path / "out")[0].labels(CLASSES)


def test_settings_find_their_part(model):
    found = configured(
        Generation(),
        {
            "text_to_image.steps": 5,
            "prompt_tricks.tricks": ["base"],
            "domain_lora.schedule.epochs": 7,
            "pseudo_labels.images_per_class": 3,
            "filter.threshold": 0.2,
        },
    )
    assert found.text_to_image.steps == 5 and found.prompt_tricks.tricks == ("base",)
    assert found.domain_lora.schedule.epochs == 7 and found.pseudo_labels.images_per_class == 3
    assert found.filter == Filter(threshold=0.2) and Generation().filter is None
    for key, words in (
        ("text_to_imag.steps", "did you mean 'text_to_image'"),
        ("steps", "has no setting 'steps'"),
        ("text_to_image.step", "did you mean 'steps'"),
        ("filter.threshhold", "did you mean 'threshold'"),
    ):
        with pytest.raises(ValueError, match=words):
            configured(Generation(), {key: 1})


def test_the_table_has_its_columns_in_one_order(parts, tmp_path):
    for name in ("one", "two"):
        generate(wanted(tmp_path), parts, tmp_path / name)
    (tmp_path / "two" / "synthetic.parquet").unlink()
    generate(wanted(tmp_path), parts, tmp_path / "two")
    one, two = (tmp_path / name / "synthetic.parquet" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_what_does_not_go_together_is_refused(parts, tmp_path):
    with pytest.raises(ValueError, match="given labels are of the images to adapt to"):
        wanted(tmp_path, given={"a": "zero"})
    with pytest.raises(ValueError, match="a backbone is needed to label"):
        wanted(tmp_path, adapt_to="photos")
    with pytest.raises(ValueError, match="a backbone is needed to filter"):
        generate(wanted(tmp_path), replace(parts, filter=Filter()), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_things_is_left_alone(parts, tmp_path):
    (tmp_path / "report.html").write_text("a labelling run's")
    (tmp_path / "labels.parquet").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"holds other files .* .'labels\.parquet' first"):
        generate(wanted(tmp_path), parts, tmp_path)
    assert (tmp_path / "report.html").read_text() == "a labelling run's"
    with pytest.raises(ValueError, match="is a file; choose another"):
        generate(wanted(tmp_path), parts, tmp_path / "report.html")


# --- the command


def test_the_time_is_foretold_and_nothing_changes(parts, photos, tmp_path, monkeypatch):
    asked = wanted(tmp_path, adapt_to=photos, backbone=backbone())
    heard = {}
    for name, least in (("told", 0), ("untold", 10**9)):
        monkeypatch.setattr(generating, "WORTH_TRYING", least)
        notes = heard[name] = []
        journal = Journal(tmp_path / f"{name}.jsonl", on_note=notes.append)
        torch.manual_seed(0)
        generate(asked, parts, tmp_path / name, journal)
        notes.append(torch.rand(1).item())
    assert lora_id(tmp_path / "told" / "lora") == lora_id(tmp_path / "untold" / "lora")
    found = [
        {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*.webp")}
        for name in heard
    ]
    assert len(found[0]) == 9 + 9 and found[0] == found[1]
    (note, chance), (other_chance,) = heard["told"], heard["untold"]
    assert chance == other_chance
    assert "s of training the LoRA" in note and "s of drawing" in note
    assert '"event": "note"' in (tmp_path / "told.jsonl").read_text()


def test_what_is_done_takes_no_time(parts, photos, tmp_path):
    asked = wanted(tmp_path, adapt_to=photos, backbone=backbone())
    before = generation.look(asked, parts, tmp_path / "out")
    assert before["seconds_adapting"] > 0 < before["seconds_drawing"]
    assert not (tmp_path / "out").exists() and not (tmp_path / "c").exists()
    generate(asked, parts, tmp_path / "out")
    after = generation.look(asked, parts, tmp_path / "out")
    assert after["seconds_adapting"] == after["seconds_drawing"] == after["seconds_expected"] == 0
    more = generation.look(replace(asked, images_per_class=9), parts, tmp_path / "out")
    assert more["seconds_adapting"] == 0 < more["seconds_drawing"] == more["seconds_expected"]


@pytest.fixture
def run(nameonly):
    return partial(nameonly, "generate")


@pytest.fixture
def command(model):
    return [
        *("-c", "zero,one,seven", "--per-class", 2, "--model", model, "--dtype", "float32"),
        *("--set", "text_to_image.steps=2", "--backbone", "tiny"),
    ]


def test_the_command_from_names_to_a_filtered_folder(command, photos, tmp_path, run):
    out = tmp_path / "out"
    adapting = ["--adapt-to", photos, "--set", "domain_lora.schedule.epochs=1", "--filter"]
    code, printed, _ = run(*command, *adapting, "--tricks", "base", "--out", out, "--json")
    assert code == 0
    found = json.loads(printed)
    assert found["asked_for"] == 6 and sum(found["classes"].values()) == found["kept"]
    rows = pq.read_table(out / "synthetic.parquet").to_pylist()
    assert {row["trick"] for row in rows} == {"base"} and {row["steps"] for row in rows} == {2}
    code, printed, _ = run(*command, *adapting, "--tricks", "base", "--out", out)
    assert code == 0 and f"{found['kept']} of 6 synthetic images kept" in printed
    assert "adapted" in printed


def test_a_filter_alone_needs_no_images(command, tmp_path, run):
    out = tmp_path / "out"
    code, printed, _ = run(*command, "--filter", "--out", out, "--json")
    assert code == 0 and json.loads(printed)["asked_for"] == 6
    rows = read_table(out)
    assert all(row["agreement"] is not None for row in rows)
    assert any(row["reason"].startswith("taken for") for row in rows), "it knows no noise"
    assert (out / "worth.json").exists()
    assert run(*command, "--out", out)[0] == 0
    assert not (out / "worth.json").exists(), "it was that of the filtered images"


def test_what_is_no_longer_asked_for_is_told(command, tmp_path, run):
    out = tmp_path / "out"
    assert "earlier calls" not in run(*command, "--out", out)[1]
    code, printed, _ = run(*command, "--per-class", 1, "--out", out)
    assert code == 0 and "3 of 3 synthetic images kept" in printed
    assert "3 images of earlier calls stay, not asked for now" in printed


def test_a_dry_run_shows_prompts_and_writes_nothing(command, tmp_path, run):
    code, printed, _ = run(*command, "--dry-run", "--out", tmp_path / "out")
    assert code == 0 and "6 images of 3 classes" in printed and "nothing was written" in printed
    assert "'an image of a zero' at guidance 7.5" in printed
    assert "expect about" in printed
    assert not (tmp_path / "out").exists()


def test_a_dry_run_tells_seconds_where_the_model_is_there(command, tmp_path, run):
    told = {}
    for name, more in (("here", []), ("away", ["--model", "nobody/nothing"])):
        arguments = [*command, *more, "--dry-run", "--json", "--out", tmp_path / "out"]
        code, printed, _ = run(*arguments)
        assert code == 0
        told[name] = json.loads(printed)["seconds_expected"]
    assert told["here"] > 0 and told["away"] is None
    arguments.remove("--json")
    assert "the time is not known" in run(*arguments)[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tricks", "magic"], "there is no trick 'magic'"),
        (["--set", "text_to_image.steps=0"], "steps must be at least 1"),
        (["--set", "text_to_image.steps=many"], "steps expects int, got 'many'"),
        (["--model", "nobody/nothing"], "hub did not give 'nobody/nothing'"),
        (["--adapt-to", "nowhere"], "nowhere"),
        (["--given", "labels.csv"], "given labels are of the images to adapt to"),
    ],
)
def test_bad_input_is_one_line_and_nothing_written(command, tmp_path, run, arguments, words):
    code, printed, told = run(*command, *arguments, "--out", tmp_path / "out")
    assert code == 2 and not printed
    assert words in told and told.strip().splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "out" / "synthetic.parquet").exists()

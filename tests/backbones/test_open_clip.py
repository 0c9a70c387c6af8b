import functools
import json
import shutil
import sys

import numpy as np
import open_clip
import pytest
import torch
from converting import convert
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPConfig, CLIPModel, CLIPTokenizer, RobertaConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from nameonly import doctor
from nameonly.backbones import Backbone
from nameonly.backbones.clip import ClipBackbone
from nameonly.backbones.open_clip import OpenClipBackbone
from nameonly.classifier import load, open_backbone
from nameonly.tiny import MODEL

IMAGES = [
    Image.fromarray(np.random.default_rng(i).integers(0, 256, (40 + i, 50, 3), dtype=np.uint8))
    for i in range(4)
]
# of such a size that both libraries crop the same pixels: they round half a pixel to other sides
EVEN = [image.resize((50, 40)) for image in IMAGES]
TEXTS = ["zero", "a photo of a three.", "the house over the sea", "an owl"]
NAMES = ["owl", "blue tit", "hen", "grey heron in the rain"]
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3}
CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def backbone_of(folder, **options):
    return OpenClipBackbone(str(folder), device="cpu", **{"dtype": "float32", **options})


@functools.cache
def shared(folder):
    """Return the backbone of a folder that no test changes, loaded once."""
    return backbone_of(folder)


def edit(folder, change):
    """Change a folder's open_clip_config.json."""
    content = json.loads((folder / CONFIG).read_text())
    change(content)
    (folder / CONFIG).write_text(json.dumps(content))


def relative_error(found, wanted):
    """Of what distinguishes the rows: a part that is common to all does not count."""
    found, wanted = found - found.mean(dim=0), wanted - wanted.mean(dim=0)
    return ((found - wanted).norm() / wanted.norm()).item()


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    """A random CLIP of transformers, with the tokenizer that open_clip has built in."""
    folder = tmp_path_factory.mktemp("clip")
    own = open_clip.SimpleTokenizer()
    merges = [" ".join(pair) for pair in own.bpe_ranks]
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(word, word): i for word, i in own.encoder.items()}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[tuple(m.split()) for m in merges])
    torch.manual_seed(0)
    ids = {"bos_token_id": own.sot_token_id, "eos_token_id": own.eot_token_id}
    config = CLIPConfig(
        text_config={
            **TOWER,
            **ids,
            "num_attention_heads": 2,
            "vocab_size": own.vocab_size,
            "max_position_embeddings": 20,
        },
        vision_config={**TOWER, "num_attention_heads": 4, "image_size": 32, "patch_size": 8},
        projection_dim=24,
    )
    model = CLIPModel(config)
    with torch.no_grad():
        for name, value in model.named_parameters():  # biases are made as zeros, norms as ones
            if name != "logit_scale":
                value.add_(0.1 * torch.randn_like(value))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def folder(clip_folder):
    """The same CLIP as open_clip writes it."""
    return convert(clip_folder, clip_folder.parent / "open-clip")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """The bundled model as open_clip writes it, with its own tokenizer."""
    return convert(MODEL, tmp_path_factory.mktemp("tiny") / "tiny-open-clip", own_tokenizer=True)


def new_model(folder, config, settings=None):
    """Write a random model of an architecture."""
    folder.mkdir()
    settings = settings or {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear"}
    content = {"model_cfg": config, "preprocess_cfg": settings}
    (folder / CONFIG).write_text(json.dumps(content))
    torch.manual_seed(0)
    network = open_clip.create_model(
        f"local-dir:{folder}", load_weights=False, pretrained_text=False
    )
    # some of CoCa's are not set at all
    state = {k: v.nan_to_num(0, 0, 0) for k, v in network.state_dict().items()}
    noisy = {k: v + 0.02 * torch.randn(v.shape) for k, v in state.items() if v.is_floating_point()}
    save_file({**state, **noisy}, folder / WEIGHTS)
    return folder


VIT = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
HOSTED = {**TEXT, "vocab_size": 992, "hf_tokenizer_name": "found/in-this-folder"}


@pytest.fixture(scope="session")
def others(tmp_path_factory):
    """Models of the other kinds that open_clip has."""
    root = tmp_path_factory.mktemp("others")
    decoder = {**TEXT, "attn_pooler_heads": 2}
    coca = {
        "embed_dim": 24,
        "custom_text": True,
        "multimodal_cfg": decoder,
        "vision_cfg": {
            **VIT,
            "attentional_pool": True,
            "attn_pooler_heads": 2,
            "attn_pooler_queries": 4,
            "output_tokens": True,
        },
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
    }
    siglip = {
        "embed_dim": 96,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 160,
            "timm_model_name": "test_vit3",
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": {
            **HOSTED,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "tokenizer_kwargs": {"clean": "canonicalize"},
        },
    }
    resnet = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": TEXT,
    }
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    ids = {"vocab_size": 992, "pad_token_id": 991, "bos_token_id": 990, "eos_token_id": 991}
    RobertaConfig(
        **size, **ids, num_attention_heads=2, max_position_embeddings=1100
    ).save_pretrained(root / "roberta-config")
    roberta = {
        "embed_dim": 24,
        "vision_cfg": VIT,
        "text_cfg": {
            "context_length": 20,
            "hf_model_name": str(root / "roberta-config"),
            "hf_tokenizer_name": "found/in-this-folder",
            "hf_proj_type": "mlp",
            "hf_pooler_type": "mean_pooler",
        },
    }
    made = {"coca": coca, "siglip": siglip, "resnet": resnet, "roberta": roberta}
    made["custom"] = {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": {**VIT, "pool_type": "avg", "no_ln_pre": True, "qk_norm": True},
        "text_cfg": {**TEXT, "proj_bias": True, "qk_norm": True},
    }
    for name, config in made.items():
        new_model(root / name, config)
        if "hf_tokenizer_name" in config["text_cfg"]:
            AutoTokenizer.from_pretrained(MODEL).save_pretrained(root / name)
    return root


KINDS = ["coca", "siglip", "resnet", "roberta", "custom"]


# --- features


def test_features_are_those_of_open_clip(folder):
    backbone = backbone_of(folder, batch_size=3)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    with torch.no_grad():
        pixels = torch.stack([transform(image) for image in IMAGES])
        images, texts, scale = model(pixels, tokenizer(TEXTS))
    assert torch.equal(torch.stack([backbone.preprocess(i) for i in IMAGES]), pixels)
    torch.testing.assert_close(backbone.encode_images(IMAGES), images)
    torch.testing.assert_close(backbone.encode_texts(TEXTS), texts)
    assert backbone.logit_scale == pytest.approx(scale.item())
    assert backbone.dim == 24 and isinstance(backbone, Backbone) and backbone.note == ""
    assert not backbone.network.training


@pytest.mark.parametrize("kind", KINDS)
def test_other_towers_are_encoded_as_open_clip_does(others, kind):
    backbone = shared(others / kind)
    name = f"local-dir:{others / kind}"
    model, _, transform = open_clip.create_model_and_transforms(name, pretrained_text=False)
    model.eval()
    with torch.no_grad():
        images = model.encode_image(torch.stack([transform(i) for i in IMAGES]), normalize=True)
        texts = model.encode_text(open_clip.get_tokenizer(name)(TEXTS), normalize=True)
    torch.testing.assert_close(backbone.encode_images(IMAGES), images, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(backbone.encode_texts(TEXTS), texts, atol=1e-5, rtol=1e-4)
    assert backbone.dim == images.shape[1] == texts.shape[1]


@pytest.mark.parametrize(
    "settings",
    [
        {"interpolation": "bicubic", "resize_mode": "shortest"},
        {"interpolation": "bilinear", "resize_mode": "squash"},
        {"interpolation": "bilinear", "resize_mode": "longest", "fill_color": 7},
    ],
)
def test_preprocessing_is_the_weights_own(folder, tmp_path, settings):
    copy = shutil.copytree(folder, tmp_path / "copy")
    settings = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], **settings}
    edit(copy, lambda content: content.update(preprocess_cfg=settings))
    name = f"local-dir:{copy}"
    _, _, transform = open_clip.create_model_and_transforms(name)
    backbone = backbone_of(copy)
    for image in IMAGES:
        assert torch.equal(backbone.preprocess(image), transform(image))
    red = backbone.preprocess(Image.new("RGB", (32, 32), (255, 0, 0)))
    torch.testing.assert_close(red[:, 0, 0], torch.tensor([0.9 / 0.4, -0.2 / 0.5, -0.3 / 0.6]))
    stated = json.loads(backbone.image_key["preprocessing"])
    assert stated["mean"] == [0.1, 0.2, 0.3] and stated["resize_mode"] == settings["resize_mode"]
    assert backbone.resolved_revision != shared(folder).resolved_revision


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_features_leave_as_unit_rows_in_float32(folder, dtype):
    backbone = backbone_of(folder, dtype=dtype)
    for rows in (backbone.encode_images(IMAGES), backbone.encode_texts(TEXTS)):
        assert rows.dtype == torch.float32
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(4))
    assert backbone.text_key["dtype"] == dtype
    assert backbone.network.visual.proj.dtype == getattr(torch, dtype)
    assert backbone.logit_scale == shared(folder).logit_scale
    assert backbone.encode_images([]).shape == backbone.encode_texts([]).shape == (0, 24)


def test_long_texts_are_cut_and_many_are_chunked(folder, monkeypatch):
    monkeypatch.setattr("nameonly.backbones.open_clip.TEXTS_PER_CHUNK", 2)
    backbone = shared(folder)
    texts = ["a photo of " + "very " * 100 + "much", *TEXTS]
    alone = torch.cat([backbone.encode_texts([t]) for t in texts])
    torch.testing.assert_close(backbone.encode_texts(texts), alone, atol=1e-6, rtol=0)


def test_values_that_are_not_finite_are_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    tensors = load_file(copy / WEIGHTS)
    save_file({**tensors, "visual.proj": tensors["visual.proj"] * torch.nan}, copy / WEIGHTS)
    with pytest.raises(FloatingPointError, match="try --dtype float32"):
        backbone_of(copy, dtype="bfloat16").encode_images(IMAGES)


# --- the same model in both families


def test_both_families_agree(clip_folder, folder):
    ours, theirs = shared(folder), ClipBackbone(str(clip_folder), "cpu", "float32")
    assert relative_error(ours.encode_images(EVEN), theirs.encode_images(EVEN)) < 1e-4
    assert relative_error(ours.encode_texts(TEXTS), theirs.encode_texts(TEXTS)) < 1e-4
    assert ours.logit_scale == pytest.approx(theirs.logit_scale)
    assert ours.prompt_shape == theirs.prompt_shape


def test_learned_vectors_do_the_same_in_both_families(clip_folder, folder):
    ours, theirs = shared(folder), ClipBackbone(str(clip_folder), "cpu", "float32")
    g = torch.Generator().manual_seed(0)
    for shape in ((3, 32), (len(NAMES), 3, 32)):
        context = torch.randn(shape, generator=g)
        found, wanted = (b.text_prompter(NAMES, 3)(context) for b in (ours, theirs))
        assert relative_error(found, wanted) < 1e-4
    pixels = torch.randn(4, 3, 32, 32, generator=g)
    for layers in (1, 3):
        tokens = torch.randn(layers, 5, 32, generator=g)
        found, wanted = (b.encode_with_tokens(pixels, tokens) for b in (ours, theirs))
        assert relative_error(found, wanted) < 1e-4
        assert relative_error(found, ours.encode_pixels(pixels)) > 0.1
    torch.testing.assert_close(ours.embed_phrase("a photo of"), theirs.embed_phrase("a photo of"))


def test_the_bundled_model_is_the_same_in_both_families(tiny_folder):
    """With a tokenizer of its own, which open_clip fills to full length."""
    ours, theirs = backbone_of(tiny_folder), ClipBackbone("tiny", "cpu", "float32")
    assert relative_error(ours.encode_images(EVEN), theirs.encode_images(EVEN)) < 1e-4
    assert relative_error(ours.encode_texts(TEXTS), theirs.encode_texts(TEXTS)) < 1e-4
    context = torch.randn(2, 128, generator=torch.Generator().manual_seed(0))
    found, wanted = (b.text_prompter(["one", "letter a"], 2)(context) for b in (ours, theirs))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


# --- learned vectors


@pytest.mark.parametrize("kind", ["clip", *KINDS])
def test_a_phrases_own_vectors_give_the_text_with_the_phrase(folder, others, kind):
    backbone = shared(folder if kind == "clip" else others / kind)
    before = {k: v.clone() for k, v in backbone.network.state_dict().items()}
    phrase = "the large"
    context = backbone.embed_phrase(phrase)
    assert context.shape[1] == backbone.prompt_shape.text_width and context.dtype == torch.float32
    wanted = backbone.encode_texts([f"{phrase} {name}" for name in NAMES])
    with torch.no_grad():
        encode = backbone.text_prompter(NAMES, len(context))
        one, several = encode(context), encode(context.expand(4, -1, -1))
    torch.testing.assert_close(one, wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(several, wanted, atol=1e-5, rtol=1e-4)
    after = backbone.network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("kind", ["clip", *KINDS])
def test_gradients_reach_every_context_vector(folder, others, kind):
    backbone = shared(folder if kind == "clip" else others / kind)
    g = torch.Generator().manual_seed(1)
    width = backbone.prompt_shape.text_width
    context = (0.1 * torch.randn(4, 3, width, generator=g)).requires_grad_()
    encode = backbone.text_prompter(NAMES, 3)
    (gradient,) = torch.autograd.grad(encode(context)[1].square()[:5].sum(), context)
    assert (gradient[1].norm(dim=1) > 0).all(), "of the class that the loss is of"
    # a sequence's classes do not see each other
    assert gradient[[0, 2, 3]].abs().max() <= 1e-6 * gradient[1].abs().max()
    assert all(p.grad is None and not p.requires_grad for p in backbone.network.parameters())
    encoded = encode(context.detach())
    assert not torch.allclose(encoded, encode(context.detach().flip(1)), atol=1e-4)


@pytest.mark.parametrize("kind", ["clip", "coca", "siglip", "roberta", "custom"])
def test_image_tokens_enter_before_the_first_layer_or_before_every_one(folder, others, kind):
    backbone = shared(folder if kind == "clip" else others / kind)
    shape = backbone.prompt_shape
    pixels = torch.stack([backbone.preprocess(i) for i in IMAGES])
    plain = backbone.encode_pixels(pixels)
    with torch.no_grad():
        none = backbone.encode_with_tokens(pixels, torch.zeros(1, 0, shape.image_width))
    torch.testing.assert_close(none, plain, atol=1e-6, rtol=1e-5)
    g = torch.Generator().manual_seed(2)
    tokens = torch.randn(shape.image_layers, 2, shape.image_width, generator=g).requires_grad_()
    (gradient,) = torch.autograd.grad(
        backbone.encode_with_tokens(pixels, tokens)[:, :3].sum(), tokens
    )
    assert (gradient.norm(dim=2) > 0).all()
    assert torch.equal(backbone.encode_pixels(pixels), plain), "no hook stays"
    with torch.no_grad():
        shallow = backbone.encode_with_tokens(pixels, tokens[:1])
        deep = backbone.encode_with_tokens(pixels, tokens)
    assert relative_error(shallow, plain) > 1e-3 and relative_error(deep, shallow) > 1e-3
    with pytest.raises(ValueError, match="expected 1 or"):
        backbone.encode_with_tokens(
            pixels, torch.zeros(shape.image_layers + 1, 2, shape.image_width)
        )


def test_learned_vectors_in_bfloat16(folder):
    """Cast on their way in; results and gradients are float32."""
    half, full = backbone_of(folder, dtype="bfloat16"), shared(folder)
    g = torch.Generator().manual_seed(3)
    context = torch.randn(3, 32, generator=g).requires_grad_()
    tokens = torch.randn(3, 2, 32, generator=g).requires_grad_()
    pixels = torch.randn(4, 3, 32, 32, generator=g)
    texts = [b.text_prompter(NAMES, 3)(context) for b in (half, full)]
    images = [b.encode_with_tokens(pixels, tokens) for b in (half, full)]
    for coarse, fine, learned in ((*texts, context), (*images, tokens)):
        assert coarse.dtype == torch.float32
        torch.testing.assert_close(coarse, fine, atol=0.03, rtol=0)
        (gradient,) = torch.autograd.grad(coarse[:, 0].sum(), learned)
        assert gradient.dtype == torch.float32 and gradient.isfinite().all() and gradient.any()


def test_a_tower_without_tokens_refuses_them(others):
    backbone = shared(others / "resnet")
    assert backbone.prompt_shape.image_layers == backbone.prompt_shape.image_width == 0
    with pytest.raises(ValueError, match=r"takes no learned tokens.*ModifiedResNet"):
        backbone.encode_with_tokens(torch.zeros(1, 3, 32, 32), torch.zeros(1, 2, 32))


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_context_that_leaves_no_place_is_refused(folder, others, kind):
    backbone = shared(folder if kind == "clip" else others / kind)
    width = backbone.prompt_shape.text_width
    # of 20 tokens: start, context, one of the name, end
    assert backbone.text_prompter(NAMES, 17)(torch.zeros(17, width)).shape[0] == 4
    with pytest.raises(ValueError, match="lower n_context"):
        backbone.text_prompter(NAMES, 18)(torch.zeros(18, width))


# --- where models come from


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    """The layout that the hub's client writes, and a model of open_clip's list that lies there."""
    snapshot = tmp_path / "hub" / "models--someone--small" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    shutil.copy(folder / WEIGHTS, snapshot / WEIGHTS)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    content = json.loads((folder / CONFIG).read_text())
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Small", content["model_cfg"])
    tag = {**content["preprocess_cfg"], "hf_hub": "someone/small/", "quick_gelu": True}
    tags = {"one": tag, "plain": {**tag, "quick_gelu": False}}
    tags["other_file"] = {**tag, "hf_hub": "someone/small/trained.bin"}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Small", tags)
    return snapshot


def test_one_model_wherever_it_lies(hub, folder, tmp_path):
    """A tag, a file in its place, a file with what belongs to it beside it, the hub, a folder."""
    wanted = shared(folder)
    shutil.copy(hub / WEIGHTS, hub / "trained.safetensors")
    shutil.copy(hub / WEIGHTS, tmp_path / "alone.safetensors")
    names = ["Small/one", "Small/other_file", f"Small/one@{tmp_path / 'alone.safetensors'}"]
    names += [f"Small/{folder / WEIGHTS}", f"local-dir:{folder}"]
    for name in names:
        found = backbone_of(name)
        assert found.resolved_revision == wanted.resolved_revision, name
        assert found.name == f"open_clip:{name}"
        assert torch.equal(found.encode_images(IMAGES), wanted.encode_images(IMAGES))
        assert torch.equal(found.encode_texts(TEXTS), wanted.encode_texts(TEXTS))
        again = open_backbone(found.reference()["model"], dtype="float32")
        assert again.reference() == found.reference()
    shutil.copy(folder / CONFIG, hub / CONFIG)
    found = backbone_of("hf-hub:someone/small")
    assert found.resolved_revision == wanted.resolved_revision
    # the other family keeps its files of the same model in the same folder
    (hub / "model.safetensors").write_bytes(b"of transformers")
    assert backbone_of("hf-hub:someone/small").reference() == found.reference()


def test_relative_paths_are_whole_in_a_reference(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert backbone_of(folder.name).reference()["model"] == f"open_clip:{folder.resolve()}"


def test_a_revision_of_the_hub_is_asked_for(hub):
    with pytest.raises(ValueError, match="the model hub did not give 'someone/small'"):
        _ = backbone_of("Small/one", revision="other").dim
    assert backbone_of("Small/one", revision=COMMIT).dim == 24


def test_a_tokenizer_on_the_hub_is_found_and_is_part_of_the_text_key(hub, tiny_folder):
    config = json.loads((tiny_folder / CONFIG).read_text())["model_cfg"]
    config["text_cfg"]["hf_tokenizer_name"] = "someone/words"
    open_clip.factory._MODEL_CONFIGS["Small"].update(config)
    shutil.copy(tiny_folder / WEIGHTS, hub / WEIGHTS)
    with pytest.raises(ValueError, match=r"needs the tokenizer 'someone/words'.*hub did not give"):
        _ = backbone_of("Small/one").dim
    words = hub.parents[2] / "models--someone--words" / "snapshots" / COMMIT
    words.mkdir(parents=True)
    (words.parents[1] / "refs").mkdir()
    (words.parents[1] / "refs" / "main").write_text(COMMIT)
    with pytest.raises(ValueError, match="has no tokenizer"):
        _ = backbone_of("Small/one").dim
    for path in tiny_folder.glob("tokenizer*"):
        shutil.copy(path, words)
    found, wanted = backbone_of("Small/one"), backbone_of(tiny_folder)
    assert torch.equal(found.encode_texts(TEXTS), wanted.encode_texts(TEXTS))
    before = found.text_key["tokenizer"]
    (words / "tokenizer.json").write_text((words / "tokenizer.json").read_text() + "\n")
    assert backbone_of("Small/one").text_key["tokenizer"] != before


def test_weights_for_the_other_activation_are_refused(hub):
    with pytest.raises(
        ValueError, match=r"trained with QuickGELU.*write open_clip:ViT-B-32-quickgelu/openai"
    ):
        _ = backbone_of("ViT-B-32/openai").dim
    for name in ("ViT-B-16/dfn2b", "ViT-L-14/metaclip_400m@some.safetensors"):
        with pytest.raises(ValueError, match="its features would be wrong"):
            _ = backbone_of(name).dim
    with pytest.raises(ValueError, match=r"trained with GELU.*open_clip:hf-hub:someone/small"):
        _ = backbone_of("Small/plain").dim


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ViT-B-33/laion2b", "no model 'ViT-B-33'.*did you mean 'ViT-B-32'"),
        ("ViT-B-32", "got ''; open_clip knows for 'ViT-B-32': openai, laion400m_e31"),
        ("ViT-B-32/laion3b", "got 'laion3b'; open_clip knows for 'ViT-B-32'"),
        ("ViT-B-32-quickgelu/laion2b_e16", "'laion2b_e16' belongs to ViT-B-32"),
        ("ViT-B-32/laion2b_e16", "hub did not give 'timm/vit_base_patch32_clip_224.laion2b_e16'"),
        (
            "zzzz/laion2b",
            "no model 'zzzz' and 'zzzz/laion2b' is no folder Expected open_clip:MODEL",
        ),
        ("ViT-B-16-SigLIP/webli", "hub did not give 'timm/ViT-B-16-SigLIP'"),
        ("ViT-B-16-SigLIP/webli@{here}", "needs the tokenizer 'timm/ViT-B-16-SigLIP'"),
        ("hf-hub:nobody/nothing", "hub did not give 'nobody/nothing'"),
        ("local-dir:nowhere", "is no open_clip model: it needs open_clip_config.json"),
        ("ViT-B-32/nowhere.safetensors", "there is no file .*nowhere.safetensors"),
        ("ViT-B-32/laion2b_e16@nowhere.safetensors", "there is no file .*nowhere.safetensors"),
    ],
)
def test_what_cannot_be_had_says_so(name, words, folder):
    name = name.format(here=folder / WEIGHTS)
    with pytest.raises(ValueError, match=f"(?s)cannot load backbone 'open_clip:{name}.*{words}"):
        _ = backbone_of(name).dim


def test_a_file_of_unknown_preprocessing_is_refused(hub, tmp_path):
    alone = shutil.copy(hub / WEIGHTS, tmp_path / "alone.safetensors")
    with pytest.raises(
        ValueError, match=r"does not say how.*Small/TAG@.*alone.safetensors; .*one, .*beside it"
    ):
        _ = backbone_of(f"Small/{alone}").dim


def test_pickles_are_refused_and_told_how_to_convert(hub, folder, tmp_path):
    pickled = tmp_path / "epoch_1.pt"
    torch.save({"state_dict": load_file(folder / WEIGHTS)}, pickled)
    wanted = rf"are pickles.*create_model\('Small', pretrained='{pickled}'\); safetensors"
    with pytest.raises(ValueError, match=wanted):
        _ = backbone_of(f"Small/one@{pickled}").dim
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / WEIGHTS).unlink()
    shutil.copy(pickled, copy / "open_clip_pytorch_model.bin")
    # open_clip would take the pickle first
    shutil.copy(folder / WEIGHTS, copy / "model.safetensors")
    with pytest.raises(ValueError, match=r"only model.safetensors, open_clip_pytorch_model.bin"):
        _ = backbone_of(copy).dim
    (hub / WEIGHTS).rename(hub / "open_clip_pytorch_model.bin")
    with pytest.raises(ValueError, match=r"has no open_clip_model.safetensors.*Small/one@FILE"):
        _ = backbone_of("Small/one").dim


def test_the_conversion_that_is_advised_works(hub, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": load_file(folder / WEIGHTS)}, "epoch_1.pt")
    with pytest.raises(ValueError) as told:
        _ = backbone_of("Small/one@epoch_1.pt").dim
    code = str(told.value).partition("convert it: ")[2]
    exec(code, {"open_clip": open_clip, "safetensors": __import__("safetensors.torch")})
    found = backbone_of(f"Small/one@{WEIGHTS}")
    assert torch.equal(found.encode_images(IMAGES), shared(folder).encode_images(IMAGES))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["preprocess_cfg"].pop("mean"), "does not say the mean"),
        (lambda c: c.pop("preprocess_cfg"), "does not say the mean and std"),
        (lambda c: c.pop("model_cfg"), "is damaged .KeyError: 'model_cfg'"),
        (lambda c: c["model_cfg"].update(text_cfg=3), "is damaged"),
        (lambda c: c["model_cfg"].update(colour="red"), "cannot load.*colour"),
        (lambda c: c["model_cfg"]["vision_cfg"].update(width=48), "cannot load.*state_dict"),
        (lambda c: c["model_cfg"]["vision_cfg"].update(layers=2), "cannot load.*state_dict"),
        (lambda c: c["preprocess_cfg"].update(resize_mode="fold"), "not one that open_clip has"),
        (lambda c: c["model_cfg"]["vision_cfg"].update(image_size=64), "name their own model"),
        (lambda c: c["model_cfg"]["text_cfg"].update(context_length=30), "name their own model"),
        (lambda c: c["model_cfg"]["text_cfg"].update(hf_tokenizer_name="x"), "has no tokenizer"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(folder, tmp_path, change, words):
    copy = shutil.copytree(folder, tmp_path / "copy")
    edit(copy, change)
    with pytest.raises(ValueError, match=f"(?s){words}"):
        _ = backbone_of(copy).dim, backbone_of(copy).image_key


def test_missing_or_truncated_weights_are_not_made_up(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    tensors = load_file(copy / WEIGHTS)
    del tensors["visual.proj"]
    save_file(tensors, copy / WEIGHTS)
    with pytest.raises(ValueError, match=r"(?s)cannot load backbone.*visual\.proj"):
        _ = backbone_of(copy).dim
    data = (folder / WEIGHTS).read_bytes()
    (copy / WEIGHTS).write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="cannot load backbone"):
        _ = backbone_of(copy).dim


def test_a_configuration_cannot_make_the_tokenizer_run_code(tiny_folder, tmp_path):
    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    options = {"trust_remote_code": True}
    edit(copy, lambda c: c["model_cfg"]["text_cfg"].update(tokenizer_kwargs=options))
    marker = tmp_path / "ran"
    (copy / "words.py").write_text(f"open({str(marker)!r}, 'w')\nclass Words: pass\n")
    stated = json.loads((copy / "tokenizer_config.json").read_text())
    stated |= {"auto_map": {"AutoTokenizer": ["words.Words", "words.Words"]}}
    stated["tokenizer_class"] = "Words"
    (copy / "tokenizer_config.json").write_text(json.dumps(stated))
    with pytest.raises(ValueError, match="cannot load the tokenizer"):
        backbone_of(copy).encode_texts(TEXTS)
    assert not marker.exists()


def test_without_the_package_one_error_names_the_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ValueError, match=r"pip install 'nameonly\[open-clip\]'"):
        _ = backbone_of(folder).dim


def test_a_package_that_does_not_import_says_why(folder, tmp_path, monkeypatch):
    (tmp_path / "open_clip").mkdir()
    broken = "raise RuntimeError('operator torchvision::nms does not exist')"
    (tmp_path / "open_clip" / "__init__.py").write_text(broken)
    monkeypatch.delitem(sys.modules, "open_clip")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"does not work here .*nms.*nameonly doctor"):
        _ = backbone_of(folder).dim


def test_weights_that_no_hub_holds_are_told_how_to_convert(hub):
    del open_clip.pretrained._PRETRAINED["Small"]["one"]["hf_hub"]
    with pytest.raises(ValueError, match=r"are no safetensors on the hub.*Small/one@FILE"):
        _ = backbone_of("Small/one").dim


def test_a_damaged_tokenizer_is_refused(tiny_folder, tmp_path):
    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    (copy / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="cannot load the tokenizer of 'open_clip:"):
        backbone_of(copy).encode_texts(TEXTS)


# --- the whole way


def test_label_save_load_and_predict(tiny_folder, digits, tmp_path, nameonly):
    def run(*words):
        ended = nameonly(*words)
        assert ended.returncode == 0, ended.stderr

    for path in sorted(digits.iterdir())[60:]:
        path.unlink()
    names = "zero,one,two,three,four,five,six,seven,eight,nine"
    labels = {}
    for kind, name in {"ours": f"open_clip:{tiny_folder}", "theirs": "tiny"}.items():
        out = tmp_path / kind
        common = ("--dtype", "float32", "--device", "cpu", "--recipe", "zero_shot", "-o", out)
        run("label", digits, "-c", names, "--backbone", name, *common)
        labels[kind] = (out / "labels.csv").read_text()
    assert labels["ours"].count("\n") == 61
    columns = [[row.split(",")[:3] for row in labels[k].splitlines()] for k in ("ours", "theirs")]
    assert columns[0] == columns[1], "the same model, so the same labels"
    assert len({row[2] for row in columns[0]}) > 5
    run("predict", tmp_path / "ours", digits, "-o", tmp_path / "again", "--device", "cpu")
    again = (tmp_path / "again" / "labels.csv").read_text()
    rows = [[row.split(",")[:4] for row in text.splitlines()] for text in (again, labels["ours"])]
    assert rows[0] == rows[1]
    loaded = load(tmp_path / "ours", device="cpu")
    assert isinstance(loaded.backbone, OpenClipBackbone)
    assert loaded.backbone.dtype == "float32" and loaded.fingerprint
    moved = shutil.copytree(tiny_folder, tmp_path / "moved")
    tensors = load_file(moved / WEIGHTS)
    save_file({**tensors, "visual.proj": tensors["visual.proj"].neg()}, moved / WEIGHTS)
    with pytest.raises(ValueError, match="the weights have changed"):
        load(tmp_path / "ours", model=f"open_clip:{moved}", device="cpu").predict_names(IMAGES)


def test_doctor_verifies_open_clip_too(tiny_folder, tmp_path):
    name = f"open_clip:{shutil.copytree(tiny_folder, tmp_path / 'copy')}"
    shutil.copy(MODEL / "reference.json", tmp_path / "copy" / "reference.json")
    assert not doctor.verify_backbone(name).failed, "the reference of the other family's model"
    doctor.write_reference(name)
    assert not doctor.verify_backbone(name).failed
    checks = {check.name: check for check in doctor.examine(tmp_path / "cache")}
    assert checks["open_clip_torch"].found == open_clip.__version__

"""CLIP models of transformers as folders that open_clip reads."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

PARTS = {
    "ln_1": "layer_norm1",
    "attn.out_proj": "self_attn.out_proj",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def tower(weights, theirs, layers):
    """Yield the weights of one tower's layers under open_clip's names."""
    for i in range(layers):
        old = f"{theirs}.encoder.layers.{i}"
        for kind in ("weight", "bias"):
            projections = [weights[f"{old}.self_attn.{p}_proj.{kind}"] for p in "qkv"]
            yield f"transformer.resblocks.{i}.attn.in_proj_{kind}", torch.cat(projections)
            for new_part, old_part in PARTS.items():
                yield (
                    f"transformer.resblocks.{i}.{new_part}.{kind}",
                    weights[f"{old}.{old_part}.{kind}"],
                )


def converted(weights, config):
    """Return the state of open_clip's model that computes what transformers' CLIP does."""
    text, vision = "text_model", "vision_model"
    state = {
        "logit_scale": weights["logit_scale"],
        "token_embedding.weight": weights[f"{text}.embeddings.token_embedding.weight"],
        "positional_embedding": weights[f"{text}.embeddings.position_embedding.weight"],
        "text_projection": weights["text_projection.weight"].T,
        "visual.class_embedding": weights[f"{vision}.embeddings.class_embedding"],
        "visual.conv1.weight": weights[f"{vision}.embeddings.patch_embedding.weight"],
        "visual.positional_embedding": weights[f"{vision}.embeddings.position_embedding.weight"],
        "visual.proj": weights["visual_projection.weight"].T,
    }
    for kind in ("weight", "bias"):
        state[f"ln_final.{kind}"] = weights[f"{text}.final_layer_norm.{kind}"]
        state[f"visual.ln_pre.{kind}"] = weights[f"{vision}.pre_layrnorm.{kind}"]
        state[f"visual.ln_post.{kind}"] = weights[f"{vision}.post_layernorm.{kind}"]
    state |= dict(tower(weights, text, config["text_config"]["num_hidden_layers"]))
    layers = config["vision_config"]["num_hidden_layers"]
    state |= {f"visual.{k}": v for k, v in tower(weights, vision, layers)}
    return {key: value.contiguous() for key, value in state.items()}


def architecture(config):
    """Return open_clip's model_cfg for a CLIP configuration of transformers."""
    text, vision = config["text_config"], config["vision_config"]
    return {
        "embed_dim": config["projection_dim"],
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": vision["image_size"],
            "layers": vision["num_hidden_layers"],
            "width": vision["hidden_size"],
            "head_width": vision["hidden_size"] // vision["num_attention_heads"],
            "mlp_ratio": vision["intermediate_size"] / vision["hidden_size"],
            "patch_size": vision["patch_size"],
        },
        "text_cfg": {
            "context_length": text["max_position_embeddings"],
            "vocab_size": text["vocab_size"],
            "width": text["hidden_size"],
            "heads": text["num_attention_heads"],
            "layers": text["num_hidden_layers"],
            "mlp_ratio": text["intermediate_size"] / text["hidden_size"],
        },
    }


def convert(folder, new, *, own_tokenizer=False):
    """Write the CLIP of a transformers folder as open_clip does, with its tokenizer or without."""
    folder, new = Path(folder), Path(new)
    new.mkdir()
    config = json.loads((folder / "config.json").read_text())
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    made = architecture(config)
    if own_tokenizer:
        made["text_cfg"]["hf_tokenizer_name"] = "found/in-this-folder"
        for path in folder.glob("tokenizer*"):
            shutil.copy(path, new / path.name)
    settings = {
        "mean": processor["image_mean"],
        "std": processor["image_std"],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    content = {"model_cfg": made, "preprocess_cfg": settings}
    (new / "open_clip_config.json").write_text(json.dumps(content))
    weights = load_file(folder / "model.safetensors")
    save_file(converted(weights, config), new / "open_clip_model.safetensors")
    return new

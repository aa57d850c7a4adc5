"""Writes adapters.json: adapters that PEFT saves, and the logits that PEFT computes with them.

    python properties/reference/formats/make_adapters.py          (peft 0.21.2, transformers 5.24, torch 2.15)

Models are the demo model and tiny ones. The numbers of an adapter, and of a tiny model, follow a formula of key and index, so that the file
has configurations, keys and shapes only. Layouts of OpenGVLab are compared by their merged weights, for a module tree of the same names.
"""
import json, math, tempfile, warnings
from pathlib import Path
import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import InternVLConfig, InternVLForConditionalGeneration

warnings.simplefilter("ignore")
root = Path(__file__).resolve().parents[3]
IDS = [5, 9, 60, 7, 33, 5]


def values(key, shape):
    """`sin(0.7 i + salt)` scaled by the kind of the tensor; the salt is a sum over the key's characters."""
    salt = 0.37 * (sum((i + 1) * ord(c) for i, c in enumerate(key)) % 997)
    wave = np.sin(0.7 * np.arange(math.prod(shape), dtype=np.float64) + salt).reshape(shape)
    wave = 1 + 0.2 * wave if "magnitude" in key or "norm" in key and key.endswith("weight") else 0.2 * wave
    return torch.tensor(wave, dtype=torch.float32)


def tree_key(key):
    """The key of the module tree for a key that `save_pretrained` writes."""
    if key.startswith(("vision_tower", "multi_modal_projector")): return f"model.{key}"
    return key.replace("language_model.lm_head", "lm_head", 1).replace("language_model.model.", "model.language_model.", 1)


def by_formula(file, name=lambda key: key):
    """Replaces the numbers of a file; base weights below a LoRA stay those of the model."""
    tensors = {key: tensor if key.endswith(".base_layer.weight") else values(name(key), tuple(tensor.shape)) for key, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    return {key: list(tensor.shape) for key, tensor in tensors.items()}


def tiny(text):
    text = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **text}
    vision = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": [4, 4], "patch_size": [2, 2]}
    return InternVLConfig(vision_config=vision, text_config=text, image_token_id=3, image_seq_length=1, tie_word_embeddings=False)


models = {
    "phi3": {"model_type": "phi3"},
    "gpt_oss": {"model_type": "gpt_oss", "num_local_experts": 3, "num_experts_per_tok": 2},
    "qwen3_moe": {"model_type": "qwen3_moe", "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 12},
}


def base_of(name, folder):
    if name == "demo": return InternVLForConditionalGeneration.from_pretrained(root / "models/demo", dtype=torch.float32).eval()
    InternVLForConditionalGeneration(tiny(models[name])).save_pretrained(folder)
    by_formula(folder / "model.safetensors", tree_key)
    return InternVLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


decoder = r"model\.language_model\.layers\.[01]\.self_attn\."
cases = [
    ("dora", "demo", dict(target_modules=["q_proj", "down_proj"], use_dora=True)),
    ("dora, rslora, patterns", "demo", dict(target_modules=["q_proj", "fc1", "o_proj"], use_dora=True, use_rslora=True, rank_pattern={r"layers\.1\.self_attn\.q_proj": 3, "fc1": 1}, alpha_pattern={"o_proj": 5})),
    ("bias all", "demo", dict(target_modules=["q_proj"], bias="all")),
    ("bias lora_only", "demo", dict(target_modules=["q_proj", "o_proj"], bias="lora_only")),
    ("embeddings", "demo", dict(target_modules=["embed_tokens", "v_proj"])),
    ("embeddings and head", "demo", dict(target_modules=["embed_tokens", "lm_head"])),
    ("head", "demo", dict(target_modules=["lm_head"])),
    ("tied embeddings", "demo", dict(target_modules=["embed_tokens", "q_proj"], ensure_weight_tying=True)),
    ("saved embeddings", "demo", dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"])),
    ("saved head", "demo", dict(target_modules=["q_proj"], modules_to_save=["lm_head"])),
    ("saved embeddings and head", "demo", dict(target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])),
    ("saved tied embeddings", "demo", dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True)),
    ("all-linear", "demo", dict(target_modules="all-linear")),
    ("layers_pattern", "demo", dict(target_modules=["q_proj"], layers_to_transform=[1, 2], layers_pattern="layers")),
    ("layers_to_transform", "demo", dict(target_modules=["q_proj", "fc2"], layers_to_transform=1, exclude_modules=r".*vision_tower.*")),
    ("phi3", "phi3", dict(target_modules=["qkv_proj", "gate_up_proj", "o_proj", "down_proj"])),
    ("gpt_oss experts", "gpt_oss", dict(target_modules=["q_proj"], target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"])),
    ("gpt_oss down", "gpt_oss", dict(target_modules=[], target_parameters=["mlp.experts.down_proj"], rank_pattern={r"layers\.0\.mlp\.experts\.down_proj": 3})),
    ("qwen3_moe experts", "qwen3_moe", dict(target_modules=["q_proj"], target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"])),
]


def case(name, model, fields):
    with tempfile.TemporaryDirectory() as folder:
        base, adapter = base_of(model, Path(folder) / "model"), Path(folder) / "adapter"
        get_peft_model(base, LoraConfig(**{"r": 2, "lora_alpha": 8, **fields})).save_pretrained(adapter)
        keys = by_formula(adapter / "adapter_model.safetensors")
        if "tied" in name:  # one LoRA, or one weight, for both
            tensors = load_file(adapter / "adapter_model.safetensors")
            for key in tensors:
                part = key.rsplit("lm_head.", 1)[-1]
                if "lm_head" in key: tensors[key] = {"lora_A.weight": lambda e: e("lora_embedding_B").T, "lora_B.weight": lambda e: e("lora_embedding_A").T}.get(part, lambda e: e(part))(lambda p: tensors[f"base_model.model.model.language_model.embed_tokens.{p}"]).clone().contiguous()
            save_file(tensors, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
        loaded = PeftModel.from_pretrained(base_of(model, Path(folder) / "again"), adapter).eval()
        config = json.loads((adapter / "adapter_config.json").read_text())
        config = {key: value for key, value in config.items() if value not in (None, [], {}, False) and key not in ("base_model_name_or_path", "auto_mapping", "revision", "runtime_config", "megatron_core", "qalora_group_size", "peft_version", "inference_mode")}
        if isinstance(config.get("target_modules"), list): config["target_modules"].sort()
        ids, inputs = IDS, {}
        if model == "demo":
            ids = [5, 9, *[loaded.config.image_token_id] * 16, 60, 7]
            inputs = {"pixel_values": torch.linspace(-2, 2, 3 * 112 * 112).reshape(1, 3, 112, 112)}
        with torch.no_grad(): logits = loaded(input_ids=torch.tensor([ids]), **inputs).logits[0, -1]
        plain = base_of(model, Path(folder) / "plain")
        with torch.no_grad(): change = (logits - plain(input_ids=torch.tensor([ids]), **inputs).logits[0, -1]).abs().max().item()
        print(f"{name}: {len(keys)} keys, the adapter changes logits by {change:.3f} of {logits.abs().max().item():.3f}")
        assert change > 0.005 * logits.abs().max()
        return {"name": name, "model": model, "config": config, "keys": keys, "logits": [float(f"{x:.6g}") for x in logits]}


def tree(paths):
    """A module with a linear layer at every path."""
    model = nn.Module()
    for path, (out, inner) in paths.items():
        node = model
        for name in path.split(".")[:-1]:
            if name not in dict(node.named_children()): node.add_module(name, nn.Module())
            node = getattr(node, name)
        node.add_module(path.split(".")[-1], nn.Linear(inner, out, bias=False))
    return model


def original_case(name, paths, fields):
    """PEFT's merged weights for modules with OpenGVLab's names; each tensor as its weighted sum."""
    with tempfile.TemporaryDirectory() as folder:
        def base():
            model = tree(paths)
            for key, weight in model.named_parameters(): weight.data = values(key, tuple(weight.shape))
            return model
        get_peft_model(base(), LoraConfig(r=2, lora_alpha=8, **fields)).save_pretrained(folder)
        keys = by_formula(Path(folder) / "adapter_model.safetensors")
        merged = PeftModel.from_pretrained(base(), folder).merge_and_unload()
        rows = {key: [float(f"{x:.6g}") for x in (weight * torch.sin(torch.arange(weight.shape[1]))).sum(1).detach()] for key, weight in merged.named_parameters()}
        config = json.loads((Path(folder) / "adapter_config.json").read_text())
        config = {key: config[key] for key in ("peft_type", "r", "lora_alpha", "use_dora")} | {"target_modules": sorted(config["target_modules"])}
        return {"name": name, "config": config, "keys": keys, "rows": rows}


vision = {"vision_model.encoder.layers.0.attn.qkv": (24, 8), "vision_model.encoder.layers.0.attn.proj": (8, 8), "vision_model.encoder.layers.0.mlp.fc1": (12, 8)}
llama = {"language_model.model.layers.1.self_attn.q_proj": (16, 16), "language_model.model.layers.1.mlp.down_proj": (16, 24)}
internlm = {"language_model.model.layers.1.attention.wqkv": (32, 16), "language_model.model.layers.1.feed_forward.w2": (16, 24), "language_model.output": (64, 16)}
originals = [
    original_case("original", {**vision, **llama}, dict(target_modules=["qkv", "proj", "q_proj", "down_proj"])),
    original_case("original, DoRA", {**vision, **llama}, dict(target_modules=["attn.qkv", "q_proj"], use_dora=True)),
    original_case("original-internlm2", {**vision, **internlm}, dict(target_modules=["wqkv", "w2", "attn.qkv", "output"], use_dora=True)),
]
written = {"cases": [case(*one) for one in cases], "original": originals, "configs": {name: tiny(text).to_dict() for name, text in models.items()}}
(Path(__file__).parent / "adapters.json").write_text(json.dumps(written, separators=(",", ":"), default=str) + "\n")
print("adapters.json", (Path(__file__).parent / "adapters.json").stat().st_size)

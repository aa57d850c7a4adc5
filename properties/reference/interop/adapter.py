"""Checks that PEFT opens adapters of this project, and that this project opens adapters of PEFT: logits on an image prompt are equal.

    python properties/reference/interop/adapter.py          (peft 0.21, transformers 5.24, torch 2.15)
"""
import json, subprocess, tempfile
from pathlib import Path
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import InternVLForConditionalGeneration

root = Path(__file__).resolve().parents[3]
base = lambda: InternVLForConditionalGeneration.from_pretrained(root / "models/demo", dtype=torch.float32).eval()
ids = torch.tensor([[5, 9, *[base().config.image_token_id] * 16, 60, 7]])
pixels = torch.linspace(-2, 2, 3 * 112 * 112).reshape(1, 3, 112, 112)


def logits(model):
    with torch.no_grad(): return model.eval()(input_ids=ids, pixel_values=pixels).logits.reshape(-1)


def ours(action, folder, *kind):
    run = subprocess.run(["npx", "tsx", "properties/reference/interop/adapter-logits.ts", action, folder, *kind], cwd=root, capture_output=True, text=True, check=True)
    return torch.tensor(json.loads(run.stdout.strip().splitlines()[-1]))


def compare(name, a, b):
    apart = ((a - b).abs().max() / b.abs().max()).item(); print(f"{name}: largest difference of logits {apart:.1e}, relative to the largest")
    assert apart < 1e-4


plain = logits(base())
for kind in ("names", "dora", "embeddings", "biases"):
    with tempfile.TemporaryDirectory() as folder:
        saved = ours("save", folder, kind); model = PeftModel.from_pretrained(base(), folder)
        compare(f"PEFT opens adapters of this project, {kind}", logits(model), saved)
        print(f"  (the adapter changes the logits by {((saved - plain).abs().max() / plain.abs().max()).item():.2f})")

torch.manual_seed(0)
for name, targets, more in (("names", ["q_proj", "down_proj", "fc2"], {}), ("a regular expression", r".*language_model.*\.(k_proj|o_proj)", {}),
                            ("rank and alpha patterns", ["q_proj", "fc1"], dict(rank_pattern={r"layers\.1\.self_attn\.q_proj": 2, "fc1": 5}, alpha_pattern={"fc1": 3})),
                            ("rsLoRA", ["o_proj"], dict(use_rslora=True)), ("modules_to_save", ["q_proj"], dict(modules_to_save=["multi_modal_projector", "input_layernorm", "language_model.norm"]))):
    model = get_peft_model(base(), LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False, **more))
    for key, weight in model.named_parameters():
        if "modules_to_save" in key: weight.data += 0.1 * torch.randn_like(weight)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        compare(f"this project opens PEFT's adapter, {name}", ours("load", folder), logits(model))

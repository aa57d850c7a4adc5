"""Writes small InternVL folders with llm-compressor, and the logits of Transformers with the weights that compressed-tensors dequantizes:

    python make_llmcompressor_folders.py TOKENIZER OUT [NAME ...]

TOKENIZER is as for `make_quantized_folders.py`. llm-compressor 0.14.0.1 runs on a CPU with what it requires: compressed-tensors 0.19.0,
Transformers 5.17.0, torch 2.14.0. Groups and blocks are smaller than in its presets, as the model is."""
import json
import shutil
import sys
from pathlib import Path
import torch
from compressed_tensors.compressors import ModelCompressor
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import QuantizationModifier
from small_internvl import logits_of, small_internvl
from transformers import InternVLForConditionalGeneration

tokenizer, out, only = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
IGNORE = ["re:.*lm_head", "re:.*vision_tower.*", "re:.*multi_modal_projector.*"]
scratch = out / "scratch"


def scheme(weights, **others):
    return dict(config_groups=dict(group_0=dict(targets=["Linear"], weights=weights) | others))


four = dict(num_bits=4, type="int", strategy="group", group_size=32)
eight = dict(num_bits=8, type="float", symmetric=True)
KINDS = {"w4a16": scheme(four | dict(symmetric=True)), "w4a16-asym": scheme(four | dict(symmetric=False)),
         "w8a8": dict(scheme="W8A8", targets="Linear"), "fp8-dynamic": dict(scheme="FP8_DYNAMIC", targets="Linear"),
         "fp8-block": scheme(eight | dict(strategy="block", block_structure=[32, 32]), input_activations=eight | dict(dynamic=True, strategy="group", group_size=32))}


def write(name):
    plain = small_internvl("qwen2", tokenizer, torch.bfloat16).to(torch.bfloat16)
    plain.save_pretrained(scratch)
    model = InternVLForConditionalGeneration.from_pretrained(scratch, dtype=torch.bfloat16)
    oneshot(model=model, recipe=QuantizationModifier(ignore=IGNORE, **KINDS[name]), pipeline="datafree")
    folder = out / f"llmcompressor-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, save_compressed=True)
    for file in folder.iterdir():
        if file.name not in ("config.json", "model.safetensors"): file.unlink()
    ModelCompressor.from_pretrained_model(model).decompress_model(model)
    before = plain.state_dict()
    weights = {k: v for k, v in model.state_dict().items() if k in before}
    changed = [k for k, v in weights.items() if not torch.equal(v, before[k])]
    assert len(changed) == 7 and weights.keys() == before.keys(), changed
    plain.load_state_dict(weights)
    ids, logits = logits_of(plain.float())  # activations are not quantized
    (folder / "expected.json").write_text(json.dumps(dict(ids=ids, side=28, logits=logits)))
    print(name, sum(f.stat().st_size for f in folder.iterdir()) // 1024, "KiB")


for name in only or KINDS: write(name)
shutil.rmtree(scratch)

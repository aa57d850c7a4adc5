"""Writes small InternVL folders that other software quantized, and the logits of Transformers with the dequantized weights:

    python make_quantized_folders.py TOKENIZER OUT [NAME ...]

TOKENIZER is a folder with a tokenizer (`properties/conformance/relatives/interns1-mini/checkpoint`), which the folders of OUT lack. The
bitsandbytes folders are written by Transformers 5.24 with bitsandbytes 0.50; AWQ, GPTQ and FP8 by the documentation of the formats (AutoAWQ's
`gemm`, GPTQModel's `gptq`, DeepSeek's blocks). GPTQ stores a bias of zeros for layers without one, as AutoGPTQ
did. AWQ is in OpenGVLab's layout with InternLM2's names, as published."""
import copy
import json
import shutil
import sys
from pathlib import Path
import bitsandbytes.functional as bnb
import numpy as np
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from safetensors.torch import load_file, save_file
from small_internvl import logits_of, opengvlab_config, opengvlab_tensors, small_internvl
from transformers import BitsAndBytesConfig, InternVLForConditionalGeneration

tokenizer, out, only = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
GROUP = 32
scratch = out / "scratch"
model_of = lambda kind: small_internvl(kind, tokenizer, torch.float16)


def write(name, model, note, tensors, config=None):
    """A folder without tokenizer: `tensors` in float16 where they are float32, and `note` as quantization_config."""
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True); folder.mkdir(parents=True)
    if config is None:
        model.save_pretrained(scratch); config = json.loads((scratch / "config.json").read_text()); shutil.rmtree(scratch)
    config["quantization_config"] = note
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    half = {k: v.half() if v.dtype == torch.float32 and not k.endswith(("_scale", "_scale_inv")) else v for k, v in tensors.items()}
    save_file({k: v.contiguous() for k, v in half.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    ids, logits = logits_of(model)
    (folder / "expected.json").write_text(json.dumps(dict(ids=ids, side=28, logits=logits)))
    print(name, sum(f.stat().st_size for f in folder.iterdir()) // 1024, "KiB")


def bitsandbytes(name, settings, kind="qwen2"):
    model = model_of(kind); model.save_pretrained(scratch / "plain")
    quantized = InternVLForConditionalGeneration.from_pretrained(scratch / "plain", quantization_config=BitsAndBytesConfig(**settings), device_map="cpu", dtype=torch.float32)
    quantized.save_pretrained(scratch / "quantized")
    plain = dict(model.named_modules())
    with torch.no_grad():
        for path, module in quantized.named_modules():
            if isinstance(module, Linear4bit): plain[path].weight.copy_(bnb.dequantize_4bit(module.weight.data, module.weight.quant_state))
            if isinstance(module, Linear8bitLt): plain[path].weight.copy_(bnb.int8_vectorwise_dequant(module.weight.data, module.weight.SCB if module.weight.SCB is not None else module.state.SCB))
    config, state = json.loads((scratch / "quantized/config.json").read_text()), load_file(scratch / "quantized/model.safetensors")
    shutil.rmtree(scratch)
    folder = out / name; shutil.rmtree(folder, ignore_errors=True); folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    ids, logits = logits_of(model)
    (folder / "expected.json").write_text(json.dumps(dict(ids=ids, side=28, logits=logits)))
    print(name, sum(f.stat().st_size for f in folder.iterdir()) // 1024, "KiB", sum("quant_state" in k or "SCB" in k for k in state), "quantized")


def pack(values, bits, axis, order=None):
    """Values `[a, b]` packed along an axis, in int32."""
    v = values.numpy().astype(np.uint32) if axis == 0 else values.numpy().astype(np.uint32).T
    n = 32 // bits
    packed = np.zeros((v.shape[0] // n, v.shape[1]), dtype=np.uint32)
    for place in range(n): packed |= v[(order[place] if order else place) :: n] << np.uint32(bits * place)
    return torch.from_numpy((packed if axis == 0 else packed.T).copy().view(np.int32))


def asymmetric(weight, bits, groups):
    """Values, zeros and scales of a weight `[out, in]`; `groups` `[in]` has the group of each input."""
    n, most = int(groups.max()) + 1, 2**bits - 1
    low, high = (torch.stack([f(weight[:, groups == g], 1) for g in range(n)], 1) for f in (torch.amin, torch.amax))
    scale = ((high - low) / most).clamp(min=1e-4).half().float()
    zero = torch.round(-low / scale).clamp(1, most)
    q = torch.round(weight / scale[:, groups] + zero[:, groups]).clamp(0, most)
    return q.long(), zero.long(), scale, ((q - zero[:, groups]) * scale[:, groups]).half().float()


def layers_of(model):
    return [(path, module) for path, module in model.named_modules() if path.startswith("model.language_model.layers.") and isinstance(module, torch.nn.Linear)]


def gptq():
    model, parts = model_of("qwen2"), {}
    generator = torch.Generator().manual_seed(1)
    for path, module in layers_of(model):
        groups = torch.randperm(module.in_features, generator=generator) // GROUP  # act-order
        q, zero, scale, weight = asymmetric(module.weight.data, 4, groups)
        module.weight.data.copy_(weight)
        parts |= {f"{path}.qweight": pack(q.T, 4, 0), f"{path}.qzeros": pack(zero.T - 1, 4, 1), f"{path}.scales": scale.T.half(), f"{path}.g_idx": groups.int(),
                  f"{path}.bias": torch.zeros(module.out_features) if module.bias is None else module.bias.data}
    state = {k: v for k, v in model.state_dict().items() if k.rsplit(".", 1)[0] not in dict(layers_of(model))}
    write("gptq", model, dict(quant_method="gptq", bits=4, group_size=GROUP, desc_act=True, sym=False, checkpoint_format="gptq"), state | parts)


def fp8(name, block):
    model, parts = model_of("qwen3"), {}
    for path, module in layers_of(model):
        w = module.weight.data
        if block:
            rows, columns = -(-w.shape[0] // block), -(-w.shape[1] // block)
            scale = torch.stack([torch.stack([w[block * i : block * (i + 1), block * j : block * (j + 1)].abs().max() for j in range(columns)]) for i in range(rows)]) / 448
            spread = scale.repeat_interleave(block, 0)[: w.shape[0]].repeat_interleave(block, 1)[:, : w.shape[1]]
        else: scale = (w.abs().max() / 448).reshape(()); spread = scale
        q = (w / spread).to(torch.float8_e4m3fn)
        w.copy_(q.float() * spread)
        parts |= {f"{path}.weight": q, f"{path}.weight_scale_inv" if block else f"{path}.weight_scale": scale}
        if not block: parts[f"{path}.input_scale"] = torch.tensor(0.5)
    note = dict(quant_method="fp8", activation_scheme="dynamic", weight_block_size=[block, block]) if block else dict(quant_method="fp8", activation_scheme="static")
    write(name, model, note, {k: v for k, v in model.state_dict().items() if k not in parts} | parts)


def awq():
    """Rows of q, k and v stand in InternLM2's groups: the queries of a key-value head, its key, its value."""
    model, order = model_of("llama"), [0, 2, 4, 6, 1, 3, 5, 7]
    c = model.config.text_config
    groups = lambda n: torch.arange(n) // GROUP
    found = {}
    for path, module in layers_of(model):
        *found[path], weight = asymmetric(module.weight.data, 4, groups(module.in_features))
        module.weight.data.copy_(weight)
    heads, size = c.num_key_value_heads, c.hidden_size // c.num_attention_heads
    def fused(parts): return torch.cat([p.view(heads, -1, size, p.shape[-1]) for p in parts], 1).reshape(-1, parts[0].shape[-1])
    names = {"self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1", "mlp.up_proj": "feed_forward.w3", "mlp.down_proj": "feed_forward.w2"}
    stem = "language_model.model.layers.0."
    def packed(key, q, zero, scale): return {f"{key}.qweight": pack(q.T, 4, 1, order), f"{key}.qzeros": pack(zero.T, 4, 1, order), f"{key}.scales": scale.T.half()}
    of = lambda name: found[f"model.language_model.layers.0.{name}"]
    parts = packed(stem + "attention.wqkv", *(fused([of(f"self_attn.{x}_proj")[i] for x in "qkv"]) for i in range(3)))
    for name, new in names.items(): parts |= packed(stem + new, *of(name))
    state = opengvlab_tensors(model, exclude=found)
    rename = [("model.embed_tokens", "model.tok_embeddings"), ("lm_head", "output"), ("model.layers.0.input_layernorm", "model.layers.0.attention_norm"), ("model.layers.0.post_attention_layernorm", "model.layers.0.ffn_norm")]
    for old, name in rename: state[f"language_model.{name}.weight"] = state.pop(f"language_model.{old}.weight")
    llm = dict(architectures=["InternLM2ForCausalLM"], model_type="internlm2", bias=False, vocab_size=c.vocab_size, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256, rms_norm_eps=c.rms_norm_eps, rope_theta=10000.0)
    write("awq", model, dict(quant_method="awq", bits=4, group_size=GROUP, version="gemm", zero_point=True, modules_to_not_convert=["vision_model", "mlp1"]), state | parts, opengvlab_config(llm))


four = dict(load_in_4bit=True, bnb_4bit_use_double_quant=True)
KINDS = {"nf4": lambda: bitsandbytes("nf4", four | dict(bnb_4bit_quant_type="nf4")), "fp4": lambda: bitsandbytes("fp4", four | dict(bnb_4bit_quant_type="fp4"), "qwen3"), "int8": lambda: bitsandbytes("int8", dict(load_in_8bit=True)),
         "gptq": gptq, "awq": awq, "fp8-tensor": lambda: fp8("fp8-tensor", None), "fp8-block": lambda: fp8("fp8-block", 32)}
for name in only or KINDS: KINDS[name]()

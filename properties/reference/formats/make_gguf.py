"""Writes a small InternVL as a pair of GGUF files and what Transformers computes with the dequantized weights:
`python make_gguf.py CASE OUT ARCHITECTURE` with a case of the reference (`qwen2-tied`, `qwen3`, `llama-vit6b` for llama and internlm2, `qwen3-moe` for
qwen3moe, `phi3`, `gpt-oss`; gguf 0.19, transformers 5.24). OUT gets model.gguf, mmproj.gguf and expected.json: ids, pixel values by a formula, logits
of the last position, and greedy tokens. Names, permutations, and the split of experts are those of llama.cpp's convert_hf_to_gguf.py. Phi-3 gets
the longrope scaling of InternVL2-4B. `python make_gguf.py qwen2-tied OUT qwen2 KIND LIBRARIES` has llama.cpp quantize the decoder to KIND, q4_k_m
or q5_k_m: a random decoder, 256 wide for the blocks of K-quants (LIBRARIES: those of node-llama-cpp 3.22)."""
import json
import math
import sys
from pathlib import Path
import gguf
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForImageTextToText
from llama_quantize import llama_quantize

case, out, arch, kind, libraries = Path(sys.argv[1]), Path(sys.argv[2]), *[*sys.argv[3:], None, None][:3]
config = AutoConfig.from_pretrained(case / "checkpoint")
if arch == "phi3":
    longrope = dict(rope_type="longrope", rope_theta=10000.0, short_factor=[1.0, 1.25, 1.5, 1.75], long_factor=[1.5, 3.0, 9.0, 25.0], original_max_position_embeddings=6)
    config.text_config.rope_parameters = longrope; config.text_config.original_max_position_embeddings = 6
if kind:
    for name, size in dict(hidden_size=256, intermediate_size=256, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2).items(): setattr(config.text_config, name, size)
    config.text_config.layer_types = ["full_attention"]
    torch.manual_seed(5)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for p in model.parameters(): p.add_(0.05 * torch.randn_like(p))
else:
    model = AutoModelForImageTextToText.from_pretrained(case / "checkpoint", config=config, dtype=torch.float32).eval()
text, vision = config.text_config, config.vision_config
tokenizer = json.loads((case / "checkpoint/tokenizer.json").read_text())
Type = gguf.GGMLQuantizationType
TEXT = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "post_attention_norm" if arch == "gpt-oss" else "ffn_norm",
        "self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up", "self_attn.sinks": "attn_sinks.weight", "mlp.router": "ffn_gate_inp", "mlp.gate": "ffn_gate_inp"}
VISION = {"attention.q_proj": "attn_q", "attention.k_proj": "attn_k", "attention.v_proj": "attn_v", "attention.projection_layer": "attn_out", "attention.q_norm": "attn_q_norm", "attention.k_norm": "attn_k_norm", "layernorm_before": "ln1", "layernorm_after": "ln2", "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down", "lambda_1": "ls1.weight", "lambda_2": "ls2.weight"}
WHOLE = {"language_model.embed_tokens": "token_embd", "language_model.norm": "output_norm", "lm_head": "output", "vision_tower.embeddings.cls_token": "v.class_embd", "vision_tower.embeddings.position_embeddings": "v.position_embd.weight",
         "vision_tower.embeddings.patch_embeddings.projection": "v.patch_embd", "multi_modal_projector.layer_norm": "mm.model.mlp.0", "multi_modal_projector.linear_1": "mm.model.mlp.1", "multi_modal_projector.linear_2": "mm.model.mlp.3"}


def name_of(key):
    key = key.removeprefix("model.")
    for old, new in WHOLE.items():
        if key == old or key.startswith(old + "."): return key.replace(old, new, 1)
    n = key.split(".layers." if "layers" in key else ".layer.")[1].split(".")[0]
    table, prefix = (TEXT, "blk") if "language_model" in key else (VISION, "v.blk")
    rest = key.split(f".{n}.", 1)[1]
    for old, new in table.items():
        if rest == old or rest.startswith(old + "."): return f"{prefix}.{n}." + rest.replace(old, new, 1)
    raise KeyError(key)


def permuted(x, heads):
    return x.reshape(heads, 2, x.shape[0] // heads // 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


w, v = gguf.GGUFWriter(out / "model.gguf", arch), gguf.GGUFWriter(out / "mmproj.gguf", "clip")
w.add_context_length(text.max_position_embeddings); w.add_embedding_length(text.hidden_size); w.add_block_count(text.num_hidden_layers); w.add_feed_forward_length(text.intermediate_size)
w.add_head_count(text.num_attention_heads); w.add_head_count_kv(text.num_key_value_heads); w.add_layer_norm_rms_eps(text.rms_norm_eps); w.add_rope_freq_base((text.rope_parameters or {}).get("rope_theta", 10000.0)); head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads; w.add_key_length(head); w.add_value_length(head)
vocab = {i: t for t, i in tokenizer["model"]["vocab"].items()} | {t["id"]: t["content"] for t in tokenizer["added_tokens"]}
special = {t["id"] for t in tokenizer["added_tokens"] if t["special"]}
added = {t["id"] for t in tokenizer["added_tokens"]}
rope = text.rope_parameters or {}
if rope.get("rope_type") == "yarn": w.add_rope_scaling_type(gguf.RopeScalingType.YARN); w.add_rope_scaling_factor(rope["factor"]); w.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
if arch == "phi3":
    w.add_rope_dimension_count(text.hidden_size // text.num_attention_heads); w.add_rope_scaling_orig_ctx_len(text.original_max_position_embeddings)
    w.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(text.max_position_embeddings / text.original_max_position_embeddings) / math.log(text.original_max_position_embeddings)))
    for kind in ("long", "short"): w.add_tensor(f"rope_factors_{kind}.weight", np.array(rope[f"{kind}_factor"], dtype=np.float32))
if arch in ("qwen3moe", "gpt-oss"): w.add_expert_used_count(text.num_experts_per_tok); w.add_expert_count(text.num_local_experts if arch == "gpt-oss" else text.num_experts)
if arch == "qwen3moe": w.add_expert_feed_forward_length(text.moe_intermediate_size)
if arch == "gpt-oss": w.add_expert_feed_forward_length(text.intermediate_size); w.add_sliding_window(text.sliding_window)
w.add_tokenizer_model("gpt2"); w.add_tokenizer_pre("qwen2"); w.add_token_list([vocab.get(i, f"[PAD{i}]") for i in range(text.vocab_size)])
w.add_token_types([3 if i in special else 4 if i in added else 1 if i in vocab else 5 for i in range(text.vocab_size)])
w.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]); w.add_eos_token_id(model.generation_config.eos_token_id or 0); w.add_add_bos_token(False)
w.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")
v.add_clip_has_vision_encoder(True); v.add_clip_projector_type("internvl"); v.add_vision_image_size(vision.image_size[0]); v.add_vision_patch_size(vision.patch_size[0]); v.add_vision_embedding_length(vision.hidden_size)
v.add_vision_feed_forward_length(vision.intermediate_size); v.add_vision_block_count(vision.num_hidden_layers); v.add_vision_head_count(vision.num_attention_heads); v.add_vision_attention_layernorm_eps(vision.layer_norm_eps)
v.add_vision_image_mean([0.485, 0.456, 0.406]); v.add_vision_image_std([0.229, 0.224, 0.225]); v.add_vision_projector_scale_factor(2); v.add_vision_use_gelu(True); v.add_vision_projection_dim(text.hidden_size)
state, new = model.state_dict(), {}
kinds = [Type.Q8_0, Type.Q4_0, Type.Q5_1, Type.Q4_1, Type.Q5_0, Type.F16, Type.BF16]


def experts_of(key, data):
    """The tensors of a layer's experts as the converter writes them, and the function that makes one tensor of them again."""
    n, bias = key.split(".layers.")[1].split(".")[0], key.endswith("_bias")
    name = lambda part: f"blk.{n}.ffn_{part}_exps.{'bias' if bias else 'weight'}"
    turned = (lambda y: y) if bias or arch != "gpt-oss" else lambda y: y.swapaxes(1, 2)
    if "down_proj" in key: return [(name("down"), turned(data))], lambda parts: turned(parts[0])
    all_rows, axis = turned(data), 1
    if arch == "gpt-oss":  # rows of gate and up in turn
        join = lambda parts: turned(np.stack(parts, 2).reshape(all_rows.shape))
        return [(name("gate"), all_rows[:, ::2]), (name("up"), all_rows[:, 1::2])], join
    half = all_rows.shape[1] // 2
    return [(name("gate"), all_rows[:, :half]), (name("up"), all_rows[:, half:])], lambda parts: np.concatenate(parts, 1)


def tensors_of(key, data):
    if ".mlp.experts." in key: return experts_of(key, data)
    name = name_of(key)
    heads = text.num_attention_heads if ".attn_q." in name else text.num_key_value_heads if ".attn_k." in name else 0
    if arch in ("llama", "internlm2") and name.startswith("blk.") and heads:
        shape = data.shape
        return [(name, permuted(data, heads))], lambda parts: parts[0].reshape(heads, shape[0] // heads // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
    return [(name, data)], lambda parts: parts[0]


for i, (key, x) in enumerate(state.items()):
    if key == "lm_head.weight" and text.tie_word_embeddings: continue
    tensors, join = tensors_of(key, x.float().numpy())
    parts = []
    for name, data in tensors:
        isMatrix = data.ndim >= 2 and data.shape[-1] % 32 == 0 and min(data.shape) > 1 and not name.startswith("v.patch") and "inp" not in name
        type = Type.F32 if kind and not name.startswith(("v.", "mm.")) else Type.MXFP4 if isMatrix and data.ndim == 3 and arch == "gpt-oss" else kinds[i % len(kinds)] if isMatrix else Type.F16 if "patch_embd.weight" in name else Type.F32
        stored = data.reshape(data.shape[-2:]) if "position_embd" in name else data.reshape(-1) if "class_embd" in name else data
        raw = gguf.quants.quantize(np.ascontiguousarray(stored), type)
        (v if name.startswith(("v.", "mm.")) else w).add_tensor(name, raw, raw_dtype=type)
        parts.append(gguf.quants.dequantize(raw, type).reshape(data.shape))
    new[key] = torch.from_numpy(np.ascontiguousarray(join(parts)))
for writer in (w, v):
    writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_tensors_to_file(); writer.close()
if kind:
    llama_quantize((out / "model.gguf").rename(out / "float32.gguf"), out / "model.gguf", kind, libraries); (out / "float32.gguf").unlink()
    for t in gguf.GGUFReader(out / "model.gguf").tensors:
        key = next(key for key in new if name_of(key) == t.name)
        new[key] = torch.from_numpy(gguf.quants.dequantize(t.data, t.tensor_type).reshape(new[key].shape).copy())
model.load_state_dict(new, strict=False); model.tie_weights()
tokens = (vision.image_size[0] // vision.patch_size[0] // 2) ** 2
ids = torch.tensor([[5, 6, *[config.image_token_id] * tokens, 7, 8, 9, 10]])
side = vision.image_size[0]
pixels = torch.sin(torch.arange(3 * side * side, dtype=torch.float64) * 0.37).float().reshape(1, 3, side, side)
with torch.no_grad():
    logits = model(input_ids=ids, pixel_values=pixels).logits[0, -1]
    greedy = model.generate(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)[0, ids.shape[1]:]
(out / "expected.json").write_text(json.dumps(dict(ids=ids[0].tolist(), side=side, logits=[round(x, 5) for x in logits.tolist()], greedy=greedy.tolist())))

"""Writes the decoder of a checkpoint folder (`npm run bench:checkpoint`, Qwen2) as GGUF, for timing llama.cpp on the same shape.

    python random_gguf.py --checkpoint DIR --type Q8_0|Q4_0|F16 --out file.gguf      (pip install gguf)
"""
import argparse, json
from pathlib import Path
import gguf
import numpy as np
from safetensors import safe_open

a = argparse.ArgumentParser()
a.add_argument("--checkpoint", required=True)
a.add_argument("--type", default="Q8_0")
a.add_argument("--out", required=True)
args = a.parse_args()

folder = Path(args.checkpoint)
text = json.loads((folder / "config.json").read_text())["text_config"]
kind = gguf.GGMLQuantizationType[args.type]
writer = gguf.GGUFWriter(args.out, "qwen2")
writer.add_name("random")
writer.add_context_length(text["max_position_embeddings"])
writer.add_embedding_length(text["hidden_size"])
writer.add_block_count(text["num_hidden_layers"])
writer.add_feed_forward_length(text["intermediate_size"])
writer.add_head_count(text["num_attention_heads"])
writer.add_head_count_kv(text["num_key_value_heads"])
writer.add_layer_norm_rms_eps(text.get("rms_norm_eps", 1e-6))
writer.add_rope_freq_base(text.get("rope_theta", 1e6))
writer.add_vocab_size(text["vocab_size"])

tokenizer = json.loads((folder / "tokenizer.json").read_text())
ordinary = tokenizer["model"]["vocab"]
names = {i: name for name, i in ordinary.items()} | {x["id"]: x["content"] for x in tokenizer["added_tokens"]}
count = text["vocab_size"]
writer.add_tokenizer_model("gpt2")
writer.add_tokenizer_pre("qwen2")
writer.add_token_list([names.get(i, f"[unused{i}]") for i in range(count)])
writer.add_token_types([1 if i < len(ordinary) else 3 for i in range(count)])
writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]])
writer.add_eos_token_id(count - 1)

KEYS = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}


def gguf_key(key):
    key = key.removeprefix("language_model.").removeprefix("model.")
    if key == "norm.weight":
        return "output_norm.weight"
    if "layers" not in key:
        return key.replace("embed_tokens", "token_embd").replace("lm_head", "output")
    for ours, theirs in KEYS.items():
        key = key.replace(ours, theirs)
    return key.replace("layers.", "blk.")


with safe_open(str(folder / "model.safetensors"), "pt") as file:
    for key in file.keys():
        # both layouts: language_model.model.…, language_model.lm_head; model.language_model.…, lm_head
        bare = key.removeprefix("model.")
        if not bare.startswith(("language_model.", "lm_head")):
            continue
        x = file.get_tensor(key).float().numpy()
        if x.ndim < 2:
            writer.add_tensor(gguf_key(bare), x)
        else:
            values = x.astype(np.float16) if args.type == "F16" else gguf.quants.quantize(x, kind)
            writer.add_tensor(gguf_key(bare), values, raw_dtype=kind)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
print(args.out)

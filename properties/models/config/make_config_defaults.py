"""Writes config-defaults.json: what Transformers 5.24 makes of configurations that leave most fields out.

    python make_config_defaults.py config-defaults.json
"""
import json
import sys
from transformers import InternVLConfig
keep_out = {"transformers_version","architectures","output_hidden_states","return_dict","chunk_size_feed_forward","is_encoder_decoder","id2label","label2id","problem_type","_name_or_path","output_attentions","use_cache"}


def clean(d):
    return {k: clean(v) if isinstance(v, dict) else v for k, v in sorted(d.items()) if k not in keep_out}


def rope(**k):
    return {"rope_scaling": k, "rope_theta": 5000.0}


given = {
  "empty": {},
  "no text, no vision": {"text_config": None, "vision_config": None, "torch_dtype": "bfloat16"},
  **{t: {"text_config": {"model_type": t}} for t in ["qwen2","qwen3","qwen3_moe","llama","phi3","gpt_oss"]},
  "sizes": {"image_token_id": 7, "vision_config": {"image_size": 224, "patch_size": [16, 14], "norm_type": "rms_norm"}, "text_config": {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}},
  "qwen2 sliding": {"text_config": {"model_type": "qwen2", "num_hidden_layers": 4, "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 2, "num_key_value_heads": None}},
  "qwen3 window unused": {"text_config": {"model_type": "qwen3", "num_hidden_layers": 2, "use_sliding_window": False, "sliding_window": 9}},
  "qwen3_moe sliding": {"text_config": {"model_type": "qwen3_moe", "num_hidden_layers": 2, "use_sliding_window": True, "mlp_only_layers": [1], "num_experts": 16}},
  "gpt_oss layers": {"text_config": {"model_type": "gpt_oss", "num_hidden_layers": 3, "rope_theta": 7.0, "num_experts": 5}},
  "gpt_oss default rope": {"text_config": {"model_type": "gpt_oss", "num_hidden_layers": 2, "rope_parameters": {}}},
  "qwen2 linear": {"text_config": {"model_type": "qwen2", "num_hidden_layers": 2, **rope(type="linear", factor=4.0)}},
  "llama dynamic": {"text_config": {"model_type": "llama", **rope(rope_type="dynamic", factor=2.0)}},
  "llama both": {"text_config": {"model_type": "llama", "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 11.0}, **rope(type="dynamic", factor=2.0)}},
  "llama3": {"text_config": {"model_type": "llama", "max_position_embeddings": 131072, **rope(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)}},
  "qwen2 yarn": {"text_config": {"model_type": "qwen2", "num_hidden_layers": 2, **rope(type="yarn", factor=4.0, attention_factor=1.5)}},
  "qwen2 yarn, top": {"text_config": {"model_type": "qwen2", "num_hidden_layers": 2, "original_max_position_embeddings": 99, **rope(type="yarn", factor=4.0, original_max_position_embeddings=64)}},
  "phi3 su": {"text_config": {"model_type": "phi3", "hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 131072, "original_max_position_embeddings": 2048, "sliding_window": 262144, **rope(type="su", original_max_position_embeddings=2048, short_factor=[1.0]*8, long_factor=[2.0]*8)}},
  "phi3 partial": {"text_config": {"model_type": "phi3", "hidden_size": 64, "num_attention_heads": 4, "partial_rotary_factor": 0.5, **rope(type="longrope", short_factor=[1.0]*4, long_factor=[2.0]*4)}},
}
def main(path):
    out = {name: {"given": d, "full": clean(InternVLConfig(**json.loads(json.dumps(d))).to_dict())} for name, d in given.items()}
    rows = [f"{json.dumps(name)}: {json.dumps(case, separators=(',', ':'))}" for name, case in out.items()]
    with open(path, "w") as f:
        f.write("{\n" + ",\n".join(rows) + "\n}\n")


main(sys.argv[1])

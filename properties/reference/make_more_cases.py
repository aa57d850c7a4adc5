"""Writes further reference cases, with shapes and options that the first cases lack, by the same `make_reference.py`.

    python properties/reference/make_more_cases.py --reference FOLDER/make_reference.py --out cases --seed 7 [--only NAME ...]

Then: npm run conformance -- cases
"""
import argparse, importlib.util, json, random
from pathlib import Path

factors = random.Random(3)
# expert sizes are multiples of 4: torch.nn.functional.grouped_mm needs rows of a multiple of 16 bytes
KINDS = {
    # head_dim not a multiple of 8, one key-value head, an odd vocabulary size, another vision tower
    "qwen2-one-kv-head": dict(like="no published one: head_dim 6, one kv head", vision=dict(hidden_size=24, num_attention_heads=3, intermediate_size=40, attention_bias=False),
                              text=dict(hidden_size=42, num_attention_heads=7, num_key_value_heads=1, intermediate_size=30, num_hidden_layers=3, hidden_act="gelu")),
    "qwen3-sliding-bias": dict(like="no published one: upper layers slide, biases", text=dict(model_type="qwen3", head_dim=10, num_attention_heads=3, num_key_value_heads=3, attention_bias=True,
                               use_sliding_window=True, sliding_window=9, max_window_layers=1, num_hidden_layers=3)),
    "llama3-rope": dict(like="Llama 3.1 scaling", text=dict(model_type="llama", head_dim=12, num_key_value_heads=1, max_position_embeddings=256, rope_theta=500000.0,
                        rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32})),
    "llama-yarn-rope": dict(like="yarn scaling, truncated", text=dict(model_type="llama", num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=512,
                            rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "beta_fast": 24.0})),
    "llama-linear-rope": dict(like="linear scaling", text=dict(model_type="llama", attention_bias=True, mlp_bias=True, rope_scaling={"rope_type": "linear", "factor": 2.5})),
    "internlm3": dict(like="InternVL3-9B: biases and dynamic scaling", text=dict(model_type="internlm3", head_dim=10, num_key_value_heads=1, qkv_bias=True, bias=True, max_position_embeddings=4096,
                      rope_scaling={"rope_type": "dynamic", "factor": 6.0}, rope_theta=50000000.0)),
    # some inputs are longer than the original length, others are not
    "phi3-longrope": dict(like="InternVL2-4B (Phi-3-mini-128k)", text=dict(model_type="phi3", hidden_size=48, pad_token_id=0, bos_token_id=None, eos_token_id=None, rope_theta=10000.0, sliding_window=20,
                          max_position_embeddings=131072, original_max_position_embeddings=48,
                          rope_scaling={"rope_type": "longrope", "short_factor": [round(factors.uniform(1, 2), 3) for _ in range(6)], "long_factor": [round(factors.uniform(1, 40), 3) for _ in range(6)]})),
    "phi3-partial": dict(like="Phi-4-mini's partial rotation", text=dict(model_type="phi3", hidden_size=40, partial_rotary_factor=0.8, pad_token_id=0, bos_token_id=None, eos_token_id=None)),
    "qwen3-moe-mixed-layers": dict(like="no published one: dense and expert layers, weights not normalised", text=dict(model_type="qwen3_moe", head_dim=6, num_hidden_layers=4, num_experts=5, num_experts_per_tok=3,
                                   moe_intermediate_size=12, decoder_sparse_step=1, mlp_only_layers=[1], norm_topk_prob=False, num_key_value_heads=1)),
    "qwen3-moe-sparse-step": dict(like="no published one: every second layer is experts", text=dict(model_type="qwen3_moe", head_dim=8, num_hidden_layers=4, num_experts=3, num_experts_per_tok=1,
                                  moe_intermediate_size=20, decoder_sparse_step=2, norm_topk_prob=True, attention_bias=True)),
    "gpt-oss-odd": dict(like="GPT-OSS with other sizes", text=dict(model_type="gpt_oss", head_dim=6, hidden_size=36, intermediate_size=12, num_hidden_layers=3, num_attention_heads=3, num_key_value_heads=1,
                        num_local_experts=5, num_experts_per_tok=3, sliding_window=7, swiglu_limit=0.8)),
}

parser = argparse.ArgumentParser()
parser.add_argument("--reference", required=True, type=Path); parser.add_argument("--out", required=True, type=Path)
parser.add_argument("--seed", type=int, default=7); parser.add_argument("--only", nargs="*"); args = parser.parse_args()
spec = importlib.util.spec_from_file_location("make_reference", args.reference)
reference = importlib.util.module_from_spec(spec); spec.loader.exec_module(reference)
corpus = [args.reference.read_text()] + [json.dumps(reference.INPUTS)] * 3
tokenizer = reference.tiny_tokenizer(corpus, 650)
processor = reference.processor_for(tokenizer, 56, 4)
for i, (name, kind) in enumerate(KINDS.items()):
    if not args.only or name in args.only: reference.run_model(name, kind, args.out, 1000 * args.seed + i, tokenizer, processor)

"""Configurations of every decoder, and weights that are sines of the parameter's name, which `attentions.ts` computes too."""
import math
import torch

values = lambda t: [float(f"{x:.6g}") for x in t.detach().reshape(-1).tolist()]
pack = lambda t: dict(shape=list(t.shape), values=values(t))


def wave(name, shape):
    h = 7
    for c in name: h = (h * 31 + ord(c)) % 65521
    base = 1.0 if "norm" in name else 0.0
    return torch.tensor([base + 0.4 * math.sin(h + 1.7 * j) for j in range(math.prod(shape))], dtype=torch.float64).float().reshape(shape)


def fill(model, config):
    for name, p in model.named_parameters():
        path = name
        if config["model_type"] == "qwen3_moe" and ".experts." in name:  # one module an expert, as in the published files
            start = name[: name.index(".experts.") + 8]
            E, I, D = config["num_experts"], config["moe_intermediate_size"], config["hidden_size"]
            one = lambda e, n, s: wave(f"{start}.{e}.{n}.weight", s)
            if name.endswith("gate_up_proj"): p.data = torch.stack([torch.cat([one(e, "gate_proj", (I, D)), one(e, "up_proj", (I, D))]) for e in range(E)])
            else: p.data = torch.stack([one(e, "down_proj", (D, I)) for e in range(E)])
        else: p.data = wave(path, tuple(p.shape))


common = dict(vocab_size=5, hidden_size=8, intermediate_size=6, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=4,
              max_position_embeddings=64, pad_token_id=None, bos_token_id=None, eos_token_id=None)
experts = dict(num_experts=4, num_experts_per_tok=2)
CONFIGS = dict(
    qwen2=dict(common, hidden_size=16, model_type="qwen2"),
    qwen2_sliding=dict(common, hidden_size=16, model_type="qwen2", use_sliding_window=True, sliding_window=3, max_window_layers=1),
    qwen3=dict(common, model_type="qwen3"),
    qwen3_moe=dict(common, model_type="qwen3_moe", moe_intermediate_size=4, decoder_sparse_step=2, mlp_only_layers=[], norm_topk_prob=True, **experts),
    llama=dict(common, model_type="llama", num_key_value_heads=1),
    phi3={k: v for k, v in dict(common, hidden_size=16, model_type="phi3", sliding_window=4).items() if k != "head_dim"},
    gpt_oss=dict(common, model_type="gpt_oss", sliding_window=3, num_local_experts=4, num_experts_per_tok=2, rope_parameters=dict(rope_type="default", rope_theta=10000.0)),
)

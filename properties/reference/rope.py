"""Writes rope.json: inverse frequencies and factors of Transformers' own ROPE_INIT_FUNCTIONS for random configurations.

    python properties/reference/rope.py          (transformers 5.24.0, torch 2.15)
"""
import json, random
from pathlib import Path
import torch
from transformers import LlamaConfig, Phi3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

random.seed(5)
FIELDS = dict(factor="factor", original_max_position_embeddings="originalMaxPositionEmbeddings", attention_factor="attentionFactor",
              beta_fast="betaFast", beta_slow="betaSlow", mscale="mscale", mscale_all_dim="mscaleAllDim", truncate="truncate",
              low_freq_factor="lowFreqFactor", high_freq_factor="highFreqFactor", short_factor="shortFactor", long_factor="longFactor",
              rope_theta="ropeTheta", rope_type="ropeType", partial_rotary_factor="partialRotaryFactor")


def sample(kind: str) -> dict:
    head, longest = random.choice([4, 6, 10, 16, 64, 80, 128]), random.choice([64, 2048, 4096, 131072])
    trained = random.choice([longest, max(16, longest // 4)])
    partial = random.choice([1.0, 0.5, 0.75]) if kind in ("default", "longrope") else 1.0
    rope = dict(rope_type=kind, rope_theta=random.choice([10000.0, 500000.0, 1000000.0, 150000.0]), partial_rotary_factor=partial)
    half = int(head * partial) // 2
    maybe = lambda key, value: rope.update({key: value}) if random.random() < 0.5 else None
    if kind in ("linear", "dynamic", "yarn", "llama3"): rope["factor"] = random.choice([1.0, 2.0, 3.7, 8.0, 32.0])
    if kind in ("yarn", "llama3", "longrope"): rope["original_max_position_embeddings"] = trained
    if kind == "yarn":
        maybe("beta_fast", random.choice([32.0, 16.0])); maybe("beta_slow", random.choice([1.0, 2.5])); maybe("truncate", random.random() < 0.5)
        maybe("attention_factor", 1.3)
        if random.random() < 0.4: rope.update(mscale=random.choice([0.7, 1.0]), mscale_all_dim=random.choice([0.5, 1.0]))
    if kind == "llama3": rope.update(low_freq_factor=random.choice([1.0, 1.5]), high_freq_factor=random.choice([4.0, 8.0]))
    if kind == "longrope":
        half = len(range(0, int(head * partial), 2))
        rope.update(short_factor=[round(random.uniform(1, 2), 3) for _ in range(half)], long_factor=[round(random.uniform(1, 40), 3) for _ in range(half)])
        maybe("factor", 4.0); maybe("attention_factor", 1.19)
    length = random.choice([1, longest // 2, longest, longest + 1, 3 * longest, trained, trained + 1])
    common = dict(hidden_size=4 * head, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=longest)
    config = LlamaConfig(**common, head_dim=head, rope_parameters=dict(rope))
    if kind == "default":
        config.rope_parameters = dict(rope)
        inverse, scaling = Phi3RotaryEmbedding.compute_default_rope_parameters(config)
    else:
        # as in the rotary module: frequencies of the trained length, unless the sequence is longer
        inverse, scaling = ROPE_INIT_FUNCTIONS[kind](config, None, seq_len=torch.tensor(length) if kind in ("dynamic", "longrope") else None)
    return dict(rope={FIELDS[k]: v for k, v in rope.items()}, headDim=head, maxPositions=longest, length=length,
                inverse=[float(f"{x:.9g}") for x in inverse.tolist()], scaling=float(scaling))


cases = [sample(kind) for kind in ("default", "linear", "dynamic", "yarn", "llama3", "longrope") for _ in range(25)]
Path(__file__).with_suffix(".json").write_text("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]\n")

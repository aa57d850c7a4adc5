"""Prints scores and compressed features of a small router of InternVL3.5-Flash, and quantiles, as JSON: `python make_flash.py > flash.json`
(torch 2.15). Every parameter and input is a formula of its name and index, so that no weights are stored: see `formula` of flash.test.ts."""
import json
import math
import torch
from torch import nn

D, HIDDEN, TILES, SIDE = 16, 6, 3, 4


def formula(name, shape):
    seed = sum(map(ord, name))
    values = [math.sin(1.7 * i + 0.3 * seed) for i in range(math.prod(shape))]
    t = torch.tensor(values, dtype=torch.float64).reshape(shape)
    fan_in = shape[-1] if len(shape) == 2 and "query_token" not in name else 1
    return (t / fan_in**0.5 * (2 if fan_in > 1 else 0.5)).float() + (1.0 if "norm" in name and name.endswith("weight") else 0.0)


class Pooling(nn.Module):
    def __init__(self):
        super().__init__()
        self.query_token = nn.Parameter(torch.zeros(1, D))
        for i in (1, 2, 3, 4):
            setattr(self, f"attn{i}", nn.MultiheadAttention(D, 16, batch_first=True))
            setattr(self, f"norm{i}", nn.LayerNorm(D))

    def forward(self, x):
        o = self.norm1(self.attn1(self.query_token[None].expand(len(x), -1, -1), x, x, need_weights=False)[0])
        for _ in range(3):
            o = self.norm2(self.attn2(o, x, x, need_weights=False)[0])
        return o[:, 0]


class Gating(nn.Module):
    def __init__(self):
        super().__init__()
        for i in (1, 2, 3, 4):
            setattr(self, f"block{i}", nn.Sequential(nn.Linear(D, 4 * D), nn.GELU(), nn.Identity(), nn.Linear(4 * D, D), nn.Identity(), nn.LayerNorm(D)))
        self.gate = nn.Sequential(nn.LayerNorm(D), nn.Linear(D, 2))

    def forward(self, x):
        for i in (1, 2, 3, 4):
            x = x + getattr(self, f"block{i}")(x)
        return self.gate(x).softmax(-1)


parts = nn.ModuleDict(dict(
    pooling_before_gating=Pooling(), gating=Gating(),
    mlp2=nn.Sequential(nn.LayerNorm(16 * D), nn.Linear(16 * D, 2 * HIDDEN), nn.GELU(), nn.Identity(), nn.Linear(2 * HIDDEN, 2 * HIDDEN), nn.GELU(), nn.Identity(), nn.Linear(2 * HIDDEN, HIDDEN)),
)).eval()
with torch.no_grad():
    for name, parameter in parts.named_parameters():
        parameter.copy_(formula(name, list(parameter.shape)))
    patches = 2 * formula("patches", [TILES, SIDE * SIDE, D])
    scores = parts["gating"](parts["pooling_before_gating"](patches))[:, 0]
    quarter = parts["mlp2"](formula("folded", [TILES, 1, 16 * D]))
    torch.manual_seed(1)
    quantiles = []
    for n in (1, 2, 3, 5, 6, 7, 11, 12, 13):
        for q in (0.0, 0.1, 0.4, 0.5, 0.75, 1.0):
            p = torch.rand(n)
            quantiles.append([p.tolist(), q, torch.quantile(p, q).item()])
print(json.dumps(dict(scores=scores.tolist(), quarter=quarter.tolist(), quantiles=quantiles)).replace("]], [[", "]],\n[["))

"""Writes layers.json: results of PyTorch and Transformers for small random inputs of single layers.

    python properties/reference/layers.py          (transformers 5.24.0, torch 2.15)
"""
import json
from pathlib import Path
import torch
from torch.nn import functional as F
from transformers.activations import ACT2FN
from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

torch.manual_seed(1)
values = lambda t: [float(f"{x:.8g}") for x in t.detach().reshape(-1).tolist()]
pack = lambda t: dict(shape=list(t.shape), values=values(t))

x = torch.cat([torch.linspace(-9, 9, 31), torch.randn(9)])
activations = {name: values(ACT2FN[name](x)) for name in ("gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "silu", "swish", "relu")}

h, weight, bias = torch.randn(3, 6) * 3 + 1, torch.randn(6), torch.randn(6)
norms = dict(x=pack(h), weight=pack(weight), bias=pack(bias), layerNorm=pack(F.layer_norm(h, (6,), weight, bias, 1e-2)), rmsNorm=pack(F.rms_norm(h, (6,), weight, 1e-2)))

image, kernel, b = torch.randn(2, 3, 7, 5), torch.randn(4, 3, 3, 2), torch.randn(4)
patches = dict(x=pack(image), weight=pack(kernel), bias=pack(b), out=pack(F.conv2d(image, kernel, b, stride=(3, 2)).flatten(2).transpose(1, 2)))

grids = []
for (rows, columns), size in (((3, 3), (5, 2)), ((4, 4), (4, 7)), ((2, 2), (6, 6)), ((5, 5), (1, 3))):
    g = torch.randn(rows * columns, 2)
    out = F.interpolate(g.T.reshape(1, 2, rows, columns), size=size, mode="bicubic", align_corners=False)
    grids.append(dict(x=pack(g), source=[rows, columns], to=list(size), out=pack(out.reshape(2, -1).T.contiguous())))

q, k, v = torch.randn(2, 6, 4, 4), torch.randn(2, 3, 7, 4), torch.randn(2, 3, 7, 4)
distance = torch.arange(3, 7)[:, None] - torch.arange(7)[None]  # four queries after three cached keys
attention = dict(q=pack(q), k=pack(k), v=pack(v), scale=0.6, causalFrom=3, window=3)
for name, mask in (("full", torch.ones(4, 7, dtype=bool)), ("causal", distance >= 0), ("sliding", (distance >= 0) & (distance < 3))):
    attention[name] = pack(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.6, enable_gqa=True))

logits, labels = torch.randn(2, 5, 7, requires_grad=True), torch.randint(0, 7, (2, 5)); labels[0, :2] = -100; labels[1, 4] = -100
loss = F.cross_entropy(logits[:, :-1].reshape(-1, 7), labels[:, 1:].reshape(-1)); loss.backward()
losses = dict(logits=pack(logits), labels=labels.tolist(), loss=float(loss), gradient=pack(logits.grad))

router = [torch.randn(6, 5, requires_grad=True) for _ in range(3)]; mask = torch.tensor([[0, 1, 1], [1, 1, 1]]); balance = []
for m in (None, mask):
    for r in router: r.grad = None
    value = load_balancing_loss_func(tuple(router), 5, 2, m); value.backward()
    balance.append(dict(mask=None if m is None else m.tolist(), loss=float(value), gradients=[pack(r.grad) for r in router]))

Path(__file__).with_suffix(".json").write_text(json.dumps(dict(
    activations=dict(x=values(x), **activations), norms=norms, patches=patches, grids=grids, attention=attention, losses=losses,
    routers=dict(logits=[pack(r) for r in router], topK=2, cases=balance)), separators=(",", ":")) + "\n")

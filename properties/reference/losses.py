"""Writes losses.json: weighted token losses and preference losses of random logits, with gradients, computed by PyTorch.

    python properties/reference/losses.py          (torch 2.15)

Sources: `InternVLChatModel.forward` with `loss_weight` and `len2weight` (OpenGVLab/InternVL); TRL's `DPOTrainer.dpo_loss` of types
`sigmoid` and `bco_pair`, its `RunningMoments` and `rpo_alpha`, as OpenGVLab's `MultimodalDPOTrainer` joins them.
"""
import json
from pathlib import Path
import torch
from torch.nn import functional as F

torch.manual_seed(3)
values = lambda t: [float(f"{x:.8g}") for x in t.detach().reshape(-1).tolist()]
pack = lambda t: dict(shape=list(t.shape), values=values(t))

B, L, V = 4, 9, 11
logits = (torch.randn(B, L, V) * 2).requires_grad_()
labels = torch.randint(0, V, (B, L))
for row, (start, end) in enumerate(((2, 9), (6, 9), (4, 7), (8, 9))): labels[row, :start] = -100; labels[row, end:] = -100

reduced = {}
for kind, weight in dict(token=lambda x: 1.0, sample=lambda x: 1 / x, square=lambda x: 1 / x**0.5).items():
    weights = torch.zeros(B, L)
    for row in range(B): weights[row] = weight(int((labels[row] != -100).sum())) * (labels[row] != -100)
    each = F.cross_entropy(logits[:, :-1].reshape(-1, V), labels[:, 1:].reshape(-1), reduction="none")
    w = weights[:, 1:].reshape(-1)
    loss = (each * w).sum() / w.sum()
    logits.grad = None; loss.backward()
    reduced[kind] = dict(weights=weights.tolist(), loss=loss.item(), gradient=pack(logits.grad))


def logps(z):
    shifted = labels[:, 1:].clone(); mask = shifted != -100; shifted[~mask] = 0
    return (torch.gather(z[:, :-1].log_softmax(-1), 2, shifted[..., None])[..., 0] * mask).sum(-1)


class RunningMoments:
    def __init__(self): self.mean, self.count = 0, 1e-24
    def update(self, xs):
        total = self.count + xs.numel()
        self.mean += ((xs.mean() - self.mean) * xs.numel() / total).item(); self.count = total


beta, running, steps = 0.1, RunningMoments(), []
for step in range(3):
    z = (torch.randn(B, L, V) * (2 + step)).requires_grad_()  # rows 0 and 1 are chosen, 2 and 3 rejected
    reference = logps(torch.randn(B, L, V))
    policy = logps(z)
    ratios = policy - reference; chosen, rejected = ratios[:2], ratios[2:]
    dpo = -F.logsigmoid(beta * (chosen - rejected))
    running.update(torch.cat((beta * chosen, beta * rejected)).mean().detach())
    bco = -F.logsigmoid(beta * chosen - running.mean) - F.logsigmoid(-(beta * rejected - running.mean))
    nll = F.cross_entropy(z[:2, :-1].reshape(-1, V), labels[:2, 1:].reshape(-1))
    mpo = (0.8 * dpo + 0.2 * bco).mean() + 1.0 * nll
    gradient = {name: pack(torch.autograd.grad(value, z, retain_graph=True)[0]) for name, value in dict(dpo=dpo.mean(), bco=bco.mean(), nll=nll, mpo=mpo).items()}
    steps.append(dict(logits=pack(z), reference=values(reference), policy=values(policy), shift=running.mean,
                      dpo=dpo.mean().item(), bco=bco.mean().item(), nll=nll.item(), mpo=mpo.item(), gradient=gradient))

Path(__file__).with_suffix(".json").write_text(json.dumps(dict(logits=pack(logits), labels=labels.tolist(), reduced=reduced, beta=beta, steps=steps), separators=(",", ":")) + "\n")

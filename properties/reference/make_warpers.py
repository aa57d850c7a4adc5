"""Prints masks of Transformers' logits warpers on random logits, as JSON: `python make_warpers.py > warpers.json` (transformers 5.24)."""
import json
import torch
from transformers import (EpsilonLogitsWarper, EtaLogitsWarper, LogitsProcessorList, MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper,
                          TypicalLogitsWarper)

from transformers.generation.logits_process import TopHLogitsWarper

torch.manual_seed(7)
MAKE = {
    "temperature": lambda v, keep: TemperatureLogitsWarper(v),
    "topK": lambda v, keep: TopKLogitsWarper(v, min_tokens_to_keep=keep),
    "topP": lambda v, keep: TopPLogitsWarper(v, min_tokens_to_keep=keep),
    "minP": lambda v, keep: MinPLogitsWarper(v, min_tokens_to_keep=keep),
    "typicalP": lambda v, keep: TypicalLogitsWarper(mass=v, min_tokens_to_keep=keep),
    "epsilonCutoff": lambda v, keep: EpsilonLogitsWarper(v, min_tokens_to_keep=keep),
    "etaCutoff": lambda v, keep: EtaLogitsWarper(v, min_tokens_to_keep=keep),
    "topH": lambda v, keep: TopHLogitsWarper(v),
}
VALUES = {"temperature": [0.3, 0.9, 2.5], "topK": [1, 3, 11, 300], "topP": [0.05, 0.5, 0.9, 0.999], "minP": [0.01, 0.1, 0.7, 1.0],
          "typicalP": [0.1, 0.5, 0.9, 0.99], "epsilonCutoff": [0.001, 0.02, 0.2], "etaCutoff": [0.0005, 0.01, 0.3], "topH": [0.1, 0.4, 0.8, 1.0]}
cases = []
for name, values in VALUES.items():
    for value in values:
        for keep in [1, 3]:
            logits = (torch.randn(1, 24) * 2.5).round(decimals=3)
            if keep == 3 and name != "topH": logits[0, torch.randperm(24)[:5]] = -float("inf")   # as an earlier processor leaves them
            out = MAKE[name](value, keep)(None, logits)[0]
            cases.append(dict(name=name, value=value, keep=keep,
                              logits=[None if x == -float("inf") else round(x, 3) for x in logits[0].tolist()],
                              kept=[i for i, x in enumerate(out.tolist()) if x != -float("inf")],
                              out=[round(x, 5) for x in out.tolist() if x != -float("inf")]))
print("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]")

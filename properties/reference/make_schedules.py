"""Prints learning rates of Transformers' schedules, step by step, as JSON: `python make_schedules.py > schedules.json` (transformers 5.24)."""
import json
import torch
from transformers import (get_constant_schedule_with_warmup, get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup)

MAKE = {
    "constant": lambda o, w, t: get_constant_schedule_with_warmup(o, w),
    "linear": get_linear_schedule_with_warmup,
    "cosine": get_cosine_schedule_with_warmup,
}
cases = []
for name, make in MAKE.items():
    for warmup, total in [(0, 6), (3, 10), (4, 4)]:
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=2e-3)
        schedule = make(optimizer, warmup, total)
        rates = []
        for _ in range(total + 2):
            rates.append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
        cases.append(dict(name=name, warmupSteps=warmup, totalSteps=total, rates=rates))
print("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]")

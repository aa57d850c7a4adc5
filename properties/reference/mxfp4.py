"""Writes mxfp4.json: MXFP4 tensors and their values dequantized by Transformers.

    python properties/reference/mxfp4.py          (transformers 5.24.0, torch 2.15)
"""
import base64, json
from pathlib import Path
import torch
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

generator = torch.Generator().manual_seed(4)
experts, out, groups = 3, 5, 2
blocks = torch.randint(0, 256, (experts, out, groups, 16), generator=generator, dtype=torch.uint8)
scales = torch.randint(90, 160, (experts, out, groups), generator=generator, dtype=torch.uint8)
weight = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
text = lambda t: base64.b64encode(t.numpy().tobytes()).decode()
Path(__file__).with_suffix(".json").write_text(json.dumps(dict(
    sizes=[experts, out, groups], blocks=text(blocks), scales=text(scales), shape=list(weight.shape), weight=text(weight))) + "\n")

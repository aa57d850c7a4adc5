"""Prints random blocks of every GGUF type and their weights by the `gguf` package, as JSON: `python make_gguf_blocks.py > gguf-blocks.json`
(gguf 0.19). Scales are finite float16 numbers; all other bits are random."""
import base64
import json
import numpy as np
import gguf
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as Type

rng = np.random.default_rng(7)
halves = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "MXFP4": []}
result = {}
for name in ("F32", "F16", "BF16", *halves):
    weights, size = GGML_QUANT_SIZES[Type[name]]
    count = 3 if weights > 1 else 40
    if weights == 1:
        x = rng.normal(size=count).astype(np.float32)
        raw = gguf.quants.quantize(x, Type[name]).view(np.uint8)
    else:
        raw = rng.integers(0, 256, (count, size), dtype=np.uint8)
        for at in halves[name]:
            raw[:, at : at + 2] = rng.normal(size=count).astype(np.float16).reshape(-1, 1).view(np.uint8)
        if name == "MXFP4": raw[:, 0] = [1, 120, 131]
        raw = raw.reshape(-1)
    values = gguf.quants.dequantize(raw if weights > 1 or name == "BF16" else raw.view(np.float32 if name == "F32" else np.float16), Type[name])
    result[name] = [base64.b64encode(raw.tobytes()).decode(), base64.b64encode(values.astype(np.float32).tobytes()).decode()]
print(json.dumps(result, indent=0))

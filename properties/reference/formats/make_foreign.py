"""Quantizes a random matrix with the original tools where they run on a CPU, else by the formats' documentation, and prints the stored tensors
and the dequantized weights as JSON: `python make_foreign.py > foreign.json` (bitsandbytes 0.50, compressed-tensors 0.20, torch 2.15)."""
import base64
import hashlib
import json
import numpy as np
import torch
import bitsandbytes.functional as bnb
from compressed_tensors.compressors import pack_to_int32

torch.manual_seed(5)
OUT, IN, GROUP = 16, 128, 32
weight = torch.randn(OUT, IN)
cases = {}
NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int32: "I32", torch.int8: "I8", torch.uint8: "U8", torch.int64: "I64", torch.float8_e4m3fn: "F8_E4M3"}


def raw(t):
    return base64.b64encode(t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).decode()


def add(name, config, tensors, expected):
    cases[name] = dict(config=config, tensors={k: dict(dtype=NAMES[t.dtype], shape=list(t.shape), data=raw(t)) for k, t in tensors.items()}, dtype=NAMES[expected.dtype], expected=hashlib.sha256(base64.b64decode(raw(expected))).hexdigest(), first=expected.flatten()[:6].float().tolist())


for kind in ("nf4", "fp4"):
    for nested in (False, True):
        for dtype in (torch.float32, torch.bfloat16):
            big = torch.randn(40, 448).to(dtype) if nested and kind == "nf4" else weight.to(dtype)
            q, state = bnb.quantize_4bit(big, blocksize=64, compress_statistics=nested, quant_type=kind)
            packed = {f"weight.{k}" if not k.startswith("quant_state") else f"weight.{k}": v for k, v in state.as_dict(packed=True).items()}
            out = bnb.dequantize_4bit(q, state)
            if nested == (dtype == torch.float32): continue
            add(f"bitsandbytes {kind} {'double ' if nested else ''}{str(dtype)[6:]}", dict(quant_method="bitsandbytes", load_in_4bit=True), {"weight": q, **packed}, out)
q8, scb, _ = bnb.int8_vectorwise_quant(weight.half())
add("bitsandbytes int8", dict(quant_method="bitsandbytes", load_in_8bit=True), {"weight": q8, "SCB": scb.float()}, bnb.int8_vectorwise_dequant(q8, scb.float()))

scale = weight.abs().amax(1, keepdim=True) / 448
fp8 = (weight / scale).to(torch.float8_e4m3fn)
one = scale.max()
add("fp8 tensor", dict(quant_method="fp8"), {"weight": (weight / one).to(torch.float8_e4m3fn), "weight_scale": one.reshape(())}, (weight / one).to(torch.float8_e4m3fn).float() * one)
blocks = torch.rand(2, 2) + 0.5
tall = torch.randn(80, 96)
q = tall.to(torch.float8_e4m3fn)
add("fp8 blocks", dict(quant_method="fp8", weight_block_size=[64, 64]), {"weight": q, "weight_scale_inv": blocks}, q.float() * blocks.repeat_interleave(64, 0)[:80].repeat_interleave(64, 1)[:, :96])
for name, group in (("float-quantized", "channel"),):
    s = scale.to(torch.bfloat16)
    add("compressed-tensors float-quantized", dict(quant_method="compressed-tensors", format="float-quantized"), {"weight": fp8, "weight_scale": s}, fp8.to(torch.bfloat16) * s)
int8 = torch.clamp(torch.round(weight / (weight.abs().amax(1, keepdim=True) / 127)), -128, 127).to(torch.int8)
s8 = (weight.abs().amax(1, keepdim=True) / 127).to(torch.bfloat16)
add("compressed-tensors int-quantized w8a8", dict(quant_method="compressed-tensors", format="int-quantized"), {"weight": int8, "weight_scale": s8}, int8.to(torch.bfloat16) * s8)
for bits in (4, 8):
    q = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), (OUT, IN), dtype=torch.int8)
    s = (torch.rand(OUT, IN // GROUP) / 8).to(torch.bfloat16)
    add(f"compressed-tensors pack-quantized w{bits}a16", dict(quant_method="compressed-tensors", format="pack-quantized", config_groups=dict(group_0=dict(weights=dict(num_bits=bits)))),
        {"weight_packed": pack_to_int32(q, bits), "weight_scale": s, "weight_shape": torch.tensor([OUT, IN])}, q.to(torch.bfloat16) * s.repeat_interleave(GROUP, 1))
q = torch.randint(-8, 8, (OUT, IN), dtype=torch.int8)
zero = torch.randint(-8, 8, (OUT, IN // GROUP), dtype=torch.int8)
s = (torch.rand(OUT, IN // GROUP) / 8).half()
add("compressed-tensors pack-quantized asymmetric", dict(quant_method="compressed-tensors", format="pack-quantized", config_groups=dict(group_0=dict(weights=dict(num_bits=4)))),
    {"weight_packed": pack_to_int32(q, 4), "weight_scale": s, "weight_zero_point": pack_to_int32(zero, 4, packed_dim=0), "weight_shape": torch.tensor([OUT, IN])}, (q.half() - zero.repeat_interleave(GROUP, 1).half()) * s.repeat_interleave(GROUP, 1))


def pack(values, bits, axis, order=None):
    """Values `[a, b]` packed along an axis, in int32."""
    v = values.numpy().astype(np.uint32) if axis == 0 else values.numpy().astype(np.uint32).T
    n = 32 // bits
    out = np.zeros((v.shape[0] // n, v.shape[1]), dtype=np.uint32)
    for place in range(n): out |= v[(order[place] if order else place) :: n] << np.uint32(bits * place)
    return torch.from_numpy((out if axis == 0 else out.T).copy().view(np.int32))


for bits, version in ((4, "gptq"), (8, "gptq"), (4, "gptq_v2")):
    groups = IN // GROUP
    q, z, s = torch.randint(0, 2**bits, (IN, OUT)), torch.randint(1, 2**bits, (groups, OUT)), (torch.rand(groups, OUT) / 8).half()
    order = torch.randperm(IN) // GROUP if version == "gptq" and bits == 4 else torch.arange(IN) // GROUP  # with and without act-order
    expected = ((q - z[order]).half() * s[order]).T
    add(f"{version} {bits} bits", dict(quant_method="gptq", bits=bits, group_size=GROUP, checkpoint_format=version),
        {"qweight": pack(q, bits, 0), "qzeros": pack(z - (0 if version == "gptq_v2" else 1), bits, 1), "scales": s, "g_idx": order.int()}, expected)
q, z, s = torch.randint(0, 16, (IN, OUT)), torch.randint(0, 16, (IN // GROUP, OUT)), (torch.rand(IN // GROUP, OUT) / 8).half()
awq = [0, 2, 4, 6, 1, 3, 5, 7]
index = torch.arange(IN) // GROUP
add("awq", dict(quant_method="awq", bits=4, group_size=GROUP, version="gemm"), {"qweight": pack(q, 4, 1, awq), "qzeros": pack(z, 4, 1, awq), "scales": s}, ((q - z[index]).half() * s[index]).T)
print(json.dumps(cases, indent=0))

"""Prints the relative error of 4-bit quantization formats on Gaussian weights: `python properties/bench/quality/int4_codebooks.py` (numpy).

Every weight of a group of 32 is rounded to the nearest of 16 levels times the group's scale (bfloat16). For `lloyd`, the levels of
lib/quantization/formats.ts, and for NF4, scales are searched as in lib/quantization/formats.ts (which rounds weights to 127ths of
the maximum for the search). The error is |w - w'| / |w| over all weights.
"""
import numpy as np

rng = np.random.default_rng(0)
weights = rng.standard_normal((40_000, 32)).astype(np.float32)

LLOYD = np.array([-127, -100, -80, -63, -48, -34, -21, -9, 2, 14, 25, 37, 50, 65, 84, 109], np.float32)
# bitsandbytes/functional.py, create_normal_map
NF4 = np.array([-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0, 0.0795803, 0.1609302,
                0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0], np.float32)


def bfloat16(x):
    bits = np.asarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def nearest(w, scale, levels):
    middles = (levels[1:] + levels[:-1]) / 2
    return levels[np.searchsorted(middles, np.divide(w, scale, out=np.zeros_like(w), where=scale != 0))]


CANDIDATES = (0.9, 0.98, 1.06, 1.16)


def search(w, levels, candidates=CANDIDATES):
    """Of scales that map the largest weight near an end of the codebook, the one with the least squared error, refitted by least squares."""
    most = np.take_along_axis(w, np.abs(w).argmax(1)[:, None], 1)
    gain, scale = np.full((len(w), 1), -1.0), np.zeros_like(most)
    for end in (levels[0], levels[-1]):
        for factor in candidates:
            at = nearest(w, most / end * np.float32(factor), levels)
            product, square = (w * at).sum(1, keepdims=True), (at * at).sum(1, keepdims=True)
            better = product * product / square > gain
            gain, scale = np.where(better, product * product / square, gain), np.where(better, product / square, scale)
    scale = bfloat16(scale)
    return scale * nearest(w, scale, levels)


def nf4(w):
    scale = bfloat16(np.abs(w).max(1, keepdims=True))
    return scale * nearest(w, scale, NF4)


def asymmetric(w):
    low, high = w.min(1, keepdims=True), w.max(1, keepdims=True)
    scale, zero = bfloat16((high - low) / 15), bfloat16(low)
    return zero + scale * np.clip(np.rint((w - zero) / scale), 0, 15)


def symmetric(w):
    """llama.cpp's Q4_0: the largest weight becomes -8."""
    most = np.take_along_axis(w, np.abs(w).argmax(1)[:, None], 1)
    scale = bfloat16(most / -8)
    return scale * np.clip(np.rint(w / scale), -8, 7)


formats = {
    "lloyd, scales searched (int4 of this library)": lambda w: search(w, LLOYD),
    "lloyd, largest weight at the nearer end": lambda w: search(w, LLOYD, (1,)),
    "NF4, scales searched": lambda w: search(w, NF4),
    "NF4 (bitsandbytes)": nf4,
    "asymmetric, zero and step": asymmetric,
    "symmetric (Q4_0)": symmetric,
}
for name, quantize in formats.items():
    print(f"{name:42s} {100 * np.linalg.norm(quantize(weights) - weights) / np.linalg.norm(weights):.2f} %")

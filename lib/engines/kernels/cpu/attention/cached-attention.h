// Causal attention of new positions after a KV cache.
#pragma once
#include "operator/tensor.h"
#include "quantization/format.h"

/** Rotary tables `[B or 1, 1, L, R]` and the additive mask `[B or 1, 1, 1, S]` of new positions, of which `pastLength` precede in the cache. */
struct NewPositions {
  int64_t pastLength;
  Format cacheFormat; // of the keys and values in the cache
  Tensor cos, sin, mask; // mask.data is null without a mask
};

/** Options of an attention layer. qNorm, kNorm `[K]` and sinks `[H]` are optional: their data may be null. */
struct AttentionOptions {
  int64_t numHeads, numKeyValueHeads, window;
  float scale, headEps;
  Tensor qNorm, kNorm, sinks;
  bool bfloat16 = false; // products of many queries may be in bfloat16
};

/** New queries `[B, L, H·K]`, keys and values `[B, L, G·K]`, before rotation. */
struct NewHeads {
  int64_t B, L, K;
  const float *q, *k, *v;
};

/**
 * Normalizes (if there are head norms) and rotates queries and keys, writes keys and values into the cache `[B, G, capacity, K]` behind
 * `pastLength` positions, and attends causally: `out` `[B, L, H·K]`. Keys in bfloat16 are transposed, `[B, G, ⌈K/2⌉, capacity]`.
 */
void attendCached(const AttentionOptions &, const NewPositions &, const NewHeads &, const Tensor &key, const Tensor &value, float *out);

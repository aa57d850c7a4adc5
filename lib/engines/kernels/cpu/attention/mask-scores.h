// The mask of attention of many queries, in scores whose vector lanes are queries.
#pragma once
#include "attention/attention.h"
#include "runtime/simd.h"

/**
 * Adds `factor` times the mask to the scores of `count` keys from `from` on, `[count][V · W]`, and hides, if the causal mask is needed, keys
 * that are not from `firstKey` to `position` of a query.
 */
template <int V>
inline void maskScores(const Vec (&firstKey)[V], const Vec (&position)[V], const float *mask, float factor, int64_t from, int64_t count,
                       bool needsCausalMask, float *scores) {
  for (int64_t j = 0; j < count; j++) {
    const float key = static_cast<float>(from + j);
    for (int v = 0; v < V; v++) {
      float *at = scores + (j * V + v) * W;
      Vec s = mask ? load(at) + mask[from + j] * factor : load(at);
      if (needsCausalMask) {
        s = key <= position[v] ? s : splat(minusInfinity);
        s = key >= firstKey[v] ? s : splat(minusInfinity);
      }
      store(at, s);
    }
  }
}

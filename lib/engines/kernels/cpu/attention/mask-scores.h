// The mask of attention of many queries, in scores whose vector lanes are queries.
#pragma once
#include "attention/attention.h"
#include "runtime/simd.h"

/**
 * Adds `factor` times the mask to the scores of `count` keys from `from` on, `[count][V · W]`, and hides keys that the causal mask, if it is
 * needed, or the window excludes from the queries at `position`.
 */
template <int V>
inline void maskScores(const Attention &p, const Vec (&position)[V], const float *mask, float factor, int64_t from, int64_t count, bool needsCausalMask,
                       float *scores) {
  for (int64_t j = 0; j < count; j++) {
    const float key = static_cast<float>(from + j);
    for (int v = 0; v < V; v++) {
      float *at = scores + (j * V + v) * W;
      Vec s = mask ? load(at) + mask[from + j] * factor : load(at);
      if (needsCausalMask) {
        s = key <= position[v] ? s : splat(minusInfinity);
        if (p.window) s = key > position[v] - static_cast<float>(p.window) ? s : splat(minusInfinity);
      }
      store(at, s);
    }
  }
}

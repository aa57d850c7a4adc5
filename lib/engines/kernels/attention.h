// `softmax(q kᵀ · scale + mask) v`.
#pragma once
#include <algorithm>
#include <cstdint>

/** Heads of `[B, H, room, K]`, of which the first L positions count, or of `[B, L, H·K]`, where each row has all of them. */
struct Heads {
  float *data;
  int64_t B, H, L, K;
  bool merged;
  int64_t room;
  float *row(int64_t b, int64_t h, int64_t l) const { return data + (merged ? ((b * L + l) * H + h) * K : ((b * H + h) * room + l) * K); }
  int64_t stride() const { return merged ? H * K : K; }
};

struct Attention {
  Heads q, k, v, out;
  const float *padding, *sinks; // [B or 1, …, Lk] and [H], or null
  bool paddedAlike;             // one row of padding for all of B
  float scale;
  bool causal;
  int64_t window; // 0: none

  /** Position of the first query: the last one stands at the last key. */
  int64_t start() const { return k.L - q.L; }
  const float *paddingOf(int64_t b) const { return padding ? padding + (paddedAlike ? 0 : b * k.L) : nullptr; }
  /** First key that some query at a position from `first` on sees. */
  int64_t firstKey(int64_t first) const { return causal && window ? std::max<int64_t>(0, first - window + 1) : 0; }
  int64_t endKey(int64_t last) const { return causal ? std::min(k.L, last + 1) : k.L; }
};

/** Fills `out`. */
void attend(const Attention &);

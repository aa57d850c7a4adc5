// Linear layers: `act(x Wᵀ + b)` with weights in any quantization format, and the gated MLP that is built from them.
#pragma once
#include <vector>
#include "nn/activation.h"
#include "quantization/dequantize.h"
#include "operator/tensor.h"

/** A projection `[M, K] → [M, N]`: `y = act(x Wᵀ + bias) ⊙ gate + residual`. */
struct Projection {
  Format format;
  int64_t N, stride; // floats (32-bit words) of a weight row
  const float *weight, *bias;
  Activation activation = Activation::none;
  float *y = nullptr;              // [M, N]
  const float *gate = nullptr;     // [M, N], or null
  const float *residual = nullptr; // [M, N], or null

  const float *row(int64_t n) const { return weight + n * stride; }
};

inline Projection projection(Format format, const Tensor &weight, const Tensor &bias) {
  return {format, weight.dim(0), weight.dim(1), weight.data, bias.data};
}

/** RMS norm of each row before the projections, if there is a weight. */
struct PreNorm {
  const float *weight;
  float eps;
};

/** All projections of x `[M, K]`. */
void linear(std::vector<Projection> projections, int64_t M, int64_t K, const float *x, const PreNorm &norm = {nullptr, 0});

/** `down(act(gate(n)) ⊙ up(n))` of `n = norm(x)`, x `[M, K]`. */
void gatedMlp(int64_t M, int64_t K, const float *x, const PreNorm &norm, Projection gate, Projection up, Projection down);

// Activation functions on vectors.
#pragma once
#include "operator/kernel-parameters.h"
#include "runtime/simd.h"

inline Vec sigmoid(Vec x) { return 1.0f / (1.0f + exp(-x)); }

inline Vec activate(Activation kind, Vec x) {
  switch (kind) {
    case Activation::none: return x;
    case Activation::gelu: return 0.5f * x * (1.0f + erf(x * 0.70710678118654752f));
    case Activation::geluTanh: return x * sigmoid(1.5957691216057308f * (x + 0.044715f * x * x * x)); // (1 + tanh t)/2 = σ(2t)
    case Activation::quickGelu: return x * sigmoid(1.702f * x);
    case Activation::silu: return x * sigmoid(x);
    case Activation::relu: return x < Vec{} ? Vec{} : x; // NaN stays NaN
  }
  return x;
}

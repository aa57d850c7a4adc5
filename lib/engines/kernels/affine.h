// `act(x Wᵀ + b)`, as a step of whatever op needs it.
#pragma once
#include <algorithm>
#include <vector>
#include "activation.h"
#include "kept.h"
#include "op.h"
#include "packed.h"

/** One weight, where its product goes, and what is done to it there. */
struct Map {
  Form form;
  int64_t N, stride; // numbers of a row of the weight
  const float *weight, *bias;
  Activation activation;
  float *y;                     // [M, N]
  const float *times = nullptr; // [M, N], or null
  const float *plus = nullptr;  // [M, N], or null

  const float *row(int64_t n) const { return weight + n * stride; }
};

/** The map of x `[…, K]` whose inputs, `weight` and `bias` if there is one, stand from `next` on. */
Map mapOf(Call &call, Form form, bool biased, int64_t K, int &next);

/** A norm of each row before the product, where there is a weight. */
struct Norm {
  const float *weight;
  float eps;
};

/** All products of x `[M, K]`. */
void product(std::vector<Map> maps, int64_t M, int64_t K, const float *x, const Norm &norm = {nullptr, 0});

/** `down(act(gate(n)) ⊙ up(n))` of `n = norm(x)`, x `[M, K]`. */
void gatedUnit(int64_t M, int64_t K, const float *x, const Norm &norm, Map gate, Map up, Map down);

constexpr int64_t maxRows = 1032; // of x at a time: bounds what is kept of them

// The way back of what is done entry by entry.
#include "activation.h"
#include "op.h"
#include "sums.h"

namespace {
constexpr int64_t grain = 1 << 14; // entries

/** The derivative of `activate`. */
Vec slope(Activation kind, Vec x) {
  switch (kind) {
    case Activation::none: return splat(1);
    case Activation::gelu: return 0.5f * (1.0f + erf(x * 0.70710678118654752f)) + x * 0.39894228040143268f * exp(-0.5f * x * x);
    case Activation::geluTanh: {
      const Vec s = sigmoid(1.5957691216057308f * (x + 0.044715f * x * x * x));
      return s + x * s * (1.0f - s) * 1.5957691216057308f * (1.0f + 0.134145f * x * x);
    }
    case Activation::quickGelu: {
      const Vec s = sigmoid(1.702f * x);
      return s + 1.702f * x * s * (1.0f - s);
    }
    case Activation::silu: {
      const Vec s = sigmoid(x);
      return s + x * s * (1.0f - s);
    }
    case Activation::relu: return x > Vec{} ? splat(1) : Vec{};
  }
  return x;
}

Activation kindOf(const Call &call) { return static_cast<Activation>(call.whole(0)); }

/** Of `act(x)`. */
void activation(Call &call) {
  const Tensor dy = call.input(0), x = call.input(1), dx = call.output(x.shape);
  require(dy.shape == x.shape, "dy and x must have one shape");
  parallel(x.size(), grain, [&](int64_t from, int64_t to) {
    const float *d = dy.data + from, *in = x.data + from;
    map(to - from, dx.data + from, [&](auto at) { return at(d) * slope(kindOf(call), at(in)); });
  });
}

/** Of `act(gate) ⊙ up`. */
void gated(Call &call) {
  const Tensor dy = call.input(0), gate = call.input(1), up = call.input(2);
  require(dy.shape == gate.shape && gate.shape == up.shape, "dy, gate and up must have one shape");
  const Tensor dGate = call.output(gate.shape, 0), dUp = call.output(up.shape, 1);
  parallel(gate.size(), grain, [&](int64_t from, int64_t to) {
    const float *d = dy.data + from, *g = gate.data + from, *u = up.data + from;
    map(to - from, dGate.data + from, [&](auto at) { return at(d) * at(u) * slope(kindOf(call), at(g)); });
    map(to - from, dUp.data + from, [&](auto at) { return at(d) * activate(kindOf(call), at(g)); });
  });
}

/** Of `x + scale ⊙ branch`, for branch and scale: that for x is dy itself. */
void residual(Call &call) {
  const Tensor dy = call.input(0), branch = call.input(1), scale = call.input(2);
  const int64_t D = scale.size();
  require(dy.shape == branch.shape && branch.dim(-1) == D, "dy and branch must have one shape, scale its last axis");
  const Tensor dBranch = call.output(branch.shape, 0), dScale = call.output({D}, 1);
  sumOverRows(branch.rows(), D, dScale.data, [&](int64_t row, float *sums) {
    const float *d = dy.data + row * D, *b = branch.data + row * D, *before = sums;
    map(D, dBranch.data + row * D, [&](auto at) { return at(d) * at(scale.data); });
    map(D, sums, [&](auto at) { return at(before) + at(d) * at(b); });
  });
}

const Op activationOp{"InternvlActivationSlopes", activation, {"dx: float"}};
const Op gatedOp{"InternvlGatedSlopes", gated, {"dgate: float", "dup: float"}};
const Op residualOp{"InternvlResidualSlopes", residual, {"dbranch: float", "dscale: float"}};
const Register<activationOp> activationRegistered;
const Register<gatedOp> gatedRegistered;
const Register<residualOp> residualRegistered;
} // namespace

// Backward pass of the elementwise operators.
#include "nn/activation.h"
#include "operator/operator.h"
#include "training/row-sums.h"

namespace {
constexpr int64_t grain = 1 << 14; // entries

/** The derivative of `activate`. */
Vec derivative(Activation kind, Vec x) {
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

/** Gradient of `act(x)`. */
void activationBackward(const kernels::ActivationBackward &in, Reader &, OperatorContext &context) {
  const Tensor dx = context.output(in.x.shape);
  parallel(dx.size(), grain, [&](int64_t from, int64_t to) {
    const float *d = in.dy.data + from, *x = in.x.data + from;
    map(to - from, dx.data + from, [&](auto at) { return at(d) * derivative(in.activation, at(x)); });
  });
}

/** Gradients of `act(gate) ⊙ up`. */
void gatedActivationBackward(const kernels::GatedActivationBackward &in, Reader &, OperatorContext &context) {
  const Tensor dGate = context.output(in.gate.shape, 0), dUp = context.output(in.up.shape, 1);
  parallel(dGate.size(), grain, [&](int64_t from, int64_t to) {
    const float *d = in.dy.data + from, *gate = in.gate.data + from, *up = in.up.data + from;
    map(to - from, dGate.data + from, [&](auto at) { return at(d) * at(up) * derivative(in.activation, at(gate)); });
    map(to - from, dUp.data + from, [&](auto at) { return at(d) * activate(in.activation, at(gate)); });
  });
}

/** Gradients of `x + scale ⊙ branch` for branch and scale; the gradient for x is dy. */
void scaledResidualBackward(const kernels::ScaledResidualBackward &in, Reader &, OperatorContext &context) {
  const int64_t D = in.axes['D'];
  const Tensor dBranch = context.output(in.branch.shape, 0), dScale = context.output({D}, 1);
  sumOverRows(in.axes.rows(), D, dScale.data, [&](int64_t row, float *sums) {
    const float *d = in.dy.data + row * D, *b = in.branch.data + row * D, *before = sums;
    map(D, dBranch.data + row * D, [&](auto at) { return at(d) * at(in.scale.data); });
    map(D, sums, [&](auto at) { return at(before) + at(d) * at(b); });
  });
}

const Register<kernels::ActivationBackward, activationBackward> activationRegistered;
const Register<kernels::GatedActivationBackward, gatedActivationBackward> gatedRegistered;
const Register<kernels::ScaledResidualBackward, scaledResidualBackward> residualRegistered;
} // namespace

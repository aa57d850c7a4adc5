// Elementwise operators, each in one pass over memory: an activation, a gated activation, and a scaled residual.
#include <algorithm>
#include "nn/activation.h"
#include "operator/operator.h"
#include "runtime/thread-pool.h"

namespace {
constexpr int64_t grain = 1 << 14; // entries

/** `act(x)`. */
void activation(const kernels::Activation &in, Reader &, OperatorContext &context) {
  const Tensor y = context.output(in.x.shape);
  parallel(y.size(), grain, [&](int64_t from, int64_t to) {
    const float *x = in.x.data + from;
    map(to - from, y.data + from, [&](auto at) { return activate(in.activation, at(x)); });
  });
}

/** `act(gate) ⊙ up`. */
void gatedActivation(const kernels::GatedActivation &in, Reader &, OperatorContext &context) {
  const Tensor y = context.output(in.gate.shape);
  parallel(y.size(), grain, [&](int64_t from, int64_t to) {
    const float *gate = in.gate.data + from, *up = in.up.data + from;
    map(to - from, y.data + from, [&](auto at) { return activate(in.activation, at(gate)) * at(up); });
  });
}

/** `x + scale ⊙ branch`, scale over the last axis. */
void scaledResidual(const kernels::ScaledResidual &in, Reader &, OperatorContext &context) {
  const Tensor y = context.output(in.x.shape);
  const int64_t D = in.axes['D'];
  parallel(in.axes.rows(), std::max<int64_t>(1, grain / std::max<int64_t>(1, D)), [&](int64_t from, int64_t to) {
    for (int64_t row = from; row < to; row++) {
      const float *x = in.x.data + row * D, *branch = in.branch.data + row * D, *scale = in.scale.data;
      map(D, y.data + row * D, [&](auto at) { return at(x) + at(scale) * at(branch); });
    }
  });
}

const Register<kernels::Activation, activation> activationRegistered;
const Register<kernels::GatedActivation, gatedActivation> gatedRegistered;
const Register<kernels::ScaledResidual, scaledResidual> residualRegistered;
} // namespace

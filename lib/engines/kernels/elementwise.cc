// What is done entry by entry: each in one pass over memory.
#include "activation.h"
#include "op.h"
#include "pool.h"
#include <algorithm>

namespace {
constexpr int64_t grain = 1 << 14; // entries

Activation kindOf(const Call &call) { return static_cast<Activation>(call.whole(0)); }

/** `act(x)`. */
void activation(Call &call) {
  const Tensor x = call.input(0), y = call.output(x.shape);
  parallel(x.size(), grain, [&](int64_t from, int64_t to) {
    const float *in = x.data + from;
    map(to - from, y.data + from, [&](auto at) { return activate(kindOf(call), at(in)); });
  });
}

/** `act(gate) ⊙ up`. */
void gated(Call &call) {
  const Tensor gate = call.input(0), up = call.input(1), y = call.output(gate.shape);
  require(gate.shape == up.shape, "gate and up must have one shape");
  parallel(gate.size(), grain, [&](int64_t from, int64_t to) {
    const float *g = gate.data + from, *u = up.data + from;
    map(to - from, y.data + from, [&](auto at) { return activate(kindOf(call), at(g)) * at(u); });
  });
}

/** `x + scale ⊙ y`, scale over the last axis. */
void residual(Call &call) {
  const Tensor x = call.input(0), branch = call.input(1), scale = call.input(2), y = call.output(x.shape);
  const int64_t D = x.dim(-1);
  require(x.shape == branch.shape && scale.size() == D, "x and y must have one shape, scale its last axis");
  parallel(x.rows(), std::max<int64_t>(1, grain / D), [&](int64_t from, int64_t to) {
    for (int64_t r = from; r < to; r++) {
      const float *a = x.data + r * D, *b = branch.data + r * D;
      map(D, y.data + r * D, [&](auto at) { return at(a) + at(scale.data) * at(b); });
    }
  });
}

const Op activationOp{"InternvlActivation", activation};
const Op gatedOp{"InternvlGated", gated};
const Op residualOp{"InternvlResidual", residual};
const Register<activationOp> activationRegistered;
const Register<gatedOp> gatedRegistered;
const Register<residualOp> residualRegistered;
} // namespace

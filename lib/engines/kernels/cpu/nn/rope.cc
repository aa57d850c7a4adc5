// Rotary position embedding.
#include "nn/rope.h"
#include "attention/attention.h"
#include "operator/operator.h"
#include "runtime/thread-pool.h"

namespace {
void rope(const kernels::Rope &in, Reader &, OperatorContext &context) {
  const Heads x = headsOf(in.x, in.axes['H']);
  const int64_t H = x.H, L = x.L, K = x.K, R = in.axes['R'];
  Heads y = x;
  y.data = context.output(in.x.shape).data;
  if (x.size() == 0) return;
  const bool sharedTables = in.axes['T'] == 1;
  parallel(x.B * L * H, std::max<int64_t>(1, (1 << 14) / K), [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i++) {
      const int64_t b = i / H / L, l = i / H % L, h = i % H, angle = ((sharedTables ? 0 : b) * L + l) * R;
      rotate(K, R, x.row(b, h, l), in.cos.data + angle, in.sin.data + angle, y.row(b, h, l), in.inverse ? -1 : 1);
    }
  });
}

const Register<kernels::Rope, rope> registered;
} // namespace

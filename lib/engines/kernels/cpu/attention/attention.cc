// `softmax(q kᵀ · scale + mask) v` of queries `[B, H, L, K]` or `[B, L, H·K]`: the choice of the kernel, and the operator.
#include "attention/attention.h"
#include "gemm/microkernel.h"
#include "operator/operator.h"

void attend(const Attention &p) {
  if (p.out.size() == 0) return;
  if (p.k.L == 0) return void(std::fill_n(p.out.data, p.out.size(), 0.0f));
  p.q.L < wideRows ? decodeAttention(p) : blockedAttention(p);
}

namespace {
void attentionOperator(const kernels::Attention &in, Reader &, OperatorContext &context) {
  const int64_t H = in.axes['H'], G = in.axes['G'];
  const Heads q = headsOf(in.q, H);
  Heads out = q;
  out.data = context.output(in.q.shape).data;
  const bool sharedMask = in.axes['M'] == 1;
  attend({q, headsOf(in.k, G), headsOf(in.v, G), out, in.mask.data, in.sinks.data, sharedMask, in.scale, in.causal, in.window});
}

const Register<kernels::Attention, attentionOperator> registered;
} // namespace

// `softmax(q kᵀ · scale + mask) v` of queries `[B, H, L, K]` or `[B, L, H·K]`: the choice of the kernel, and the operator.
#include "attention/attention.h"
#include "gemm/gemm-kind.h"
#include "gemm/microkernel.h"
#include "operator/operator.h"

namespace {
constexpr int64_t minRoundedScores = 1 << 14; // fewer scores of a head stay in float32: packing costs more than the products

/** Causal attention is never in int8: keys of a decoder have outliers that turn with their position, and no mean takes them away. */
GemmKind kindOf(const Attention &p) {
  const GemmKind kind = p.bfloat16 && p.q.L * p.k.L >= minRoundedScores ? attentionKind() : GemmKind::float32;
  return kind == GemmKind::int8 && (p.causal || p.sinks) ? GemmKind::float32 : kind;
}
} // namespace

void attend(const Attention &p) {
  if (p.out.size() == 0) return;
  if (p.k.L == 0) return void(std::fill_n(p.out.data, p.out.size(), 0.0f));
  if (p.q.L < wideRows) return decodeAttention(p);
  const GemmKind kind = kindOf(p);
  kind == GemmKind::amxBfloat16 ? amxAttention(p) : blockedAttention(p, kind == GemmKind::int8);
}

namespace {
void attentionOperator(const kernels::Attention &in, Reader &, OperatorContext &context) {
  const int64_t H = in.axes['H'], G = in.axes['G'];
  const Heads q = headsOf(in.q, H);
  Heads out = q;
  out.data = context.output(in.q.shape).data;
  const bool sharedMask = in.axes['M'] == 1;
  const std::vector<int64_t> starts = sampleStarts(in.segments);
  attend({q, headsOf(in.k, G), headsOf(in.v, G), out, in.mask.data, in.sinks.data, sharedMask, in.scale, in.causal, in.window, in.bfloat16,
          starts.empty() ? nullptr : starts.data()});
}

const Register<kernels::Attention, attentionOperator> registered;
} // namespace

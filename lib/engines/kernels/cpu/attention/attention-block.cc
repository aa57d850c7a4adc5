#include "attention/attention-block.h"
#include "gemm/linear.h"
#include "operator/operator.h"
#include "runtime/scratch-buffer.h"

void attentionBlock(const kernels::AttentionWeights &weights, const Axes &axes, const float *x, const NewPositions &positions, const Tensor &key,
                    const Tensor &value, float *y) {
  const int64_t B = axes['B'], L = axes['L'], D = axes['D'], M = B * L;
  Projection q = projection(weights.formats[0], weights.weight, weights.bias), k = projection(weights.formats[1], weights.weight1, weights.bias1);
  Projection v = projection(weights.formats[2], weights.weight2, weights.bias2), o = projection(weights.formats[3], weights.weight3, weights.bias3);
  static thread_local ScratchBuffer queries, keys, values, attended;
  q.y = queries.reserve(M * q.N), k.y = keys.reserve(M * k.N), v.y = values.reserve(M * v.N);
  linear({q, k, v}, M, D, x, {weights.norm.data, weights.eps});
  float *out = attended.reserve(M * q.N);
  const AttentionOptions options{axes['H'],       axes['G'],     weights.window, weights.scale,
                                 weights.headEps, weights.qNorm, weights.kNorm,  weights.sinks,
                                 weights.formats[0] != Format::float32};
  attendCached(options, positions, {B, L, axes['K'], q.y, k.y, v.y}, key, value, out);
  o.y = y, o.residual = x;
  linear({o}, M, q.N, out);
}

namespace {
void attentionBlockOperator(const kernels::AttentionBlock &in, Reader &, OperatorContext &context) {
  const NewPositions positions{in.pastLength, in.cacheFormat, in.cos, in.sin, in.mask};
  attentionBlock(in.part, in.axes, in.x.data, positions, in.key, in.value, context.output(in.x.shape).data);
}

const Register<kernels::AttentionBlock, attentionBlockOperator> registered;
} // namespace

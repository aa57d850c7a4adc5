// Backward pass of `y = x Wᵀ + b`: dx = dy W, dW = dyᵀ x, db = Σ dy; each is computed only if it is needed.
#include "gemm/matmul.h"
#include "operator/operator.h"
#include "training/row-sums.h"

namespace {
void linearBackward(const kernels::LinearBackward &in, Reader &, OperatorContext &context) {
  const int64_t M = in.axes.rows(), N = in.axes['N'], K = in.axes['K'];
  const Tensor dx = context.outputIf(in.needsX, in.x.shape, 0), dWeight = context.outputIf(in.needsWeight, in.weight.shape, 1);
  const Tensor dBias = context.outputIf(in.needsBias, {N}, 2);
  const Matrix dy = rowMajor(in.dy.data, M, N, N);
  if (in.needsX) multiplyParallel(dy, rowMajor(in.weight.data, N, K, K), dx.data, K);
  if (in.needsWeight) multiplyParallel(dy.transposed(), rowMajor(in.x.data, M, K, K), dWeight.data, K);
  if (in.needsBias)
    sumOverRows(M, N, dBias.data, [&](int64_t row, float *sums) {
      const float *d = in.dy.data + row * N, *before = sums;
      map(N, sums, [&](auto at) { return at(before) + at(d); });
    });
}

const Register<kernels::LinearBackward, linearBackward> registered;
} // namespace

// Backward pass of linear layers, `y = x Wᵀ + b`: dx = dy W, dW = dyᵀ x, db = Σ dy; each is computed only if it is needed.
#include "gemm/matmul.h"
#include "operator/operator.h"
#include "training/row-sums.h"

namespace {
/** Gradients of one layer from the gradient of its output `[M, N]`. */
struct Layer {
  const Tensor &dy, &weight;
  int64_t N;
  Tensor dWeight, dBias;
};

/** Computes the outputs of a layer that are needed; `dx` is the sum over layers of one input. */
void layerBackward(const Layer &layer, const Tensor &x, int64_t M, int64_t K, const Tensor &dx, bool add) {
  const int64_t N = layer.N;
  const Matrix dy = rowMajor(layer.dy.data, M, N, N);
  if (dx.size() > 0) multiplyParallel(dy, rowMajor(layer.weight.data, N, K, K), dx.data, K, add);
  if (layer.dWeight.size() > 0) multiplyParallel(dy.transposed(), rowMajor(x.data, M, K, K), layer.dWeight.data, K);
  if (layer.dBias.size() > 0)
    sumOverRows(M, N, layer.dBias.data, [&](int64_t row, float *sums) {
      const float *d = layer.dy.data + row * N, *before = sums;
      map(N, sums, [&](auto at) { return at(before) + at(d); });
    });
}

void linearBackward(const kernels::LinearBackward &in, Reader &, OperatorContext &context) {
  const int64_t N = in.axes['N'];
  const Tensor dx = context.outputIf(in.needsX, in.x.shape, 0);
  const Tensor dWeight = context.outputIf(in.needsWeight, in.weight.shape, 1), dBias = context.outputIf(in.needsBias, {N}, 2);
  layerBackward({in.dy, in.weight, N, dWeight, dBias}, in.x, in.axes.rows(), in.axes['K'], dx, false);
}

/** The gradients of `count` layers of one input; that of the input is their sum. */
template <class In, int count>
void layersBackward(const In &in, const Tensor *const (&dys)[count], const Tensor *const (&weights)[count], OperatorContext &context) {
  const Tensor dx = context.outputIf(in.needsX, in.x.shape, 0);
  for (int i = 0; i < count; i++) {
    const int64_t N = weights[i]->dim(0);
    const Tensor dWeight = context.outputIf(in.needsWeight[i], weights[i]->shape, 1 + 2 * i), dBias = context.outputIf(in.needsBias[i], {N}, 2 + 2 * i);
    layerBackward({*dys[i], *weights[i], N, dWeight, dBias}, in.x, in.axes.rows(), in.axes['K'], dx, i > 0);
  }
}

void qkvLinearBackward(const kernels::QkvLinearBackward &in, Reader &, OperatorContext &context) {
  layersBackward(in, {&in.dq, &in.dk, &in.dv}, {&in.weight, &in.weight1, &in.weight2}, context);
}

void gateUpLinearBackward(const kernels::GateUpLinearBackward &in, Reader &, OperatorContext &context) {
  layersBackward(in, {&in.dgate, &in.dup}, {&in.weight, &in.weight1}, context);
}

const Register<kernels::LinearBackward, linearBackward> linearRegistered;
const Register<kernels::QkvLinearBackward, qkvLinearBackward> qkvLinearRegistered;
const Register<kernels::GateUpLinearBackward, gateUpLinearBackward> gateUpLinearRegistered;
} // namespace

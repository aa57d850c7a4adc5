// A linear layer with a low-rank update, `x Wᵀ + b + s · (d Aᵀ) Bᵀ`, and its backward pass. d is x, or x after dropout. A `[rank, K]`,
// B `[N, rank]`.
#include <memory>
#include "gemm/linear.h"
#include "gemm/matmul.h"
#include "operator/operator.h"

namespace {
Matrix rows(const Tensor &x, int64_t M, int64_t columns) { return rowMajor(x.data, M, columns, columns); }

/** `scale · a b` in memory of its own, for results with few columns. */
class ScaledProduct {
 public:
  ScaledProduct(const Matrix &a, const Matrix &b, float scale) : rows(a.rows), columns(b.columns), memory(new float[a.rows * b.columns]) {
    multiplyParallel(a, b, memory.get(), columns);
    for (int64_t i = 0; i < rows * columns; i++) memory[i] *= scale;
  }
  Matrix matrix() const { return rowMajor(memory.get(), rows, columns, columns); }

 private:
  int64_t rows, columns;
  std::unique_ptr<float[]> memory;
};

void loraLinear(const kernels::LoraLinear &in, Reader &, OperatorContext &context) {
  const int64_t M = in.axes.rows(), K = in.axes['K'], N = in.axes['N'], rank = in.axes['Q'];
  std::vector<int64_t> shape = in.x.shape;
  shape.back() = N;
  Projection p = projection(Format::float32, in.weight, in.bias);
  p.y = context.output(shape).data;
  linear({p}, M, K, in.x.data);
  const Tensor &d = in.loraInput.data ? in.loraInput : in.x;
  const ScaledProduct low(rows(d, M, K), rows(in.lora_A, rank, K).transposed(), *in.scaling.data);
  multiplyParallel(low.matrix(), rows(in.lora_B, N, rank).transposed(), p.y, N, true);
}

/** With v = s · dy B: dx = dy W + v A, dA = vᵀ d, dB = s · dyᵀ (d Aᵀ). If d is not x, v A is the gradient of d. */
void loraLinearBackward(const kernels::LoraLinearBackward &in, Reader &, OperatorContext &context) {
  const int64_t M = in.axes.rows(), K = in.axes['K'], N = in.axes['N'], rank = in.axes['Q'];
  const bool dropped = in.loraInput.data != nullptr;
  float *dx = context.outputIf(in.needsX, in.x.shape, 0).data, *dInput = context.outputIf(in.needsLoraInput, in.x.shape, 1).data;
  float *dA = context.outputIf(in.needsLoraA, in.lora_A.shape, 2).data, *dB = context.outputIf(in.needsLoraB, in.lora_B.shape, 3).data;
  const float scale = *in.scaling.data;
  const Matrix dy = rows(in.dy, M, N), A = rows(in.lora_A, rank, K), d = rows(dropped ? in.loraInput : in.x, M, K);
  const ScaledProduct v(dy, rows(in.lora_B, N, rank), scale);
  if (in.needsX) multiplyParallel(dy, rows(in.weight, N, K), dx, K);
  if (dropped && in.needsLoraInput) multiplyParallel(v.matrix(), A, dInput, K);
  if (!dropped && in.needsX) multiplyParallel(v.matrix(), A, dx, K, true);
  if (in.needsLoraA) multiplyParallel(v.matrix().transposed(), d, dA, K);
  if (in.needsLoraB) multiplyParallel(dy.transposed(), ScaledProduct(d, A.transposed(), scale).matrix(), dB, rank);
}

const Register<kernels::LoraLinear, loraLinear> registered;
const Register<kernels::LoraLinearBackward, loraLinearBackward> backwardRegistered;
} // namespace

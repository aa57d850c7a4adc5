// Operators: a linear layer, `act(x Wᵀ + b) + residual`, projections of one input (q, k and v; gate and up), and a gated MLP,
// `down(act(gate(n)) ⊙ up(n)) + residual` of `n = norm(x)`. The norm, the bias, the activation and the residual cost no operators of their own.
#include "gemm/linear.h"
#include "operator/operator.h"

namespace {
/** The shape of x with its last axis replaced. */
std::vector<int64_t> withLastAxis(std::vector<int64_t> shape, int64_t size) {
  shape.back() = size;
  return shape;
}

void linearOperator(const kernels::Linear &in, Reader &, OperatorContext &context) {
  Projection p = projection(in.format, in.weight, in.bias);
  p.activation = in.activation, p.residual = in.residual.data;
  p.y = context.output(withLastAxis(in.x.shape, p.N)).data;
  linear({p}, in.axes.rows(), in.axes['K'], in.x.data);
}

/** One output for each projection of x, `[M, K]`. */
void projectTogether(std::vector<Projection> projections, const Tensor &x, int64_t M, int64_t K, OperatorContext &context) {
  int output = 0;
  for (Projection &p : projections) p.y = context.output(withLastAxis(x.shape, p.N), output++).data;
  linear(projections, M, K, x.data);
}

void qkvLinearOperator(const kernels::QkvLinear &in, Reader &, OperatorContext &context) {
  projectTogether({projection(in.formats[0], in.weight, in.bias), projection(in.formats[1], in.weight1, in.bias1),
                   projection(in.formats[2], in.weight2, in.bias2)},
                  in.x, in.axes.rows(), in.axes['K'], context);
}

void gateUpLinearOperator(const kernels::GateUpLinear &in, Reader &, OperatorContext &context) {
  projectTogether({projection(in.formats[0], in.weight, in.bias), projection(in.formats[1], in.weight1, in.bias1)}, in.x, in.axes.rows(), in.axes['K'],
                  context);
}

void gatedMlpOperator(const kernels::GatedMlp &in, Reader &, OperatorContext &context) {
  Projection gate = projection(in.formats[0], in.weight, in.bias), up = projection(in.formats[1], in.weight1, in.bias1);
  Projection down = projection(in.formats[2], in.weight2, in.bias2);
  gate.activation = in.activation, down.residual = in.residual.data;
  down.y = context.output(withLastAxis(in.x.shape, down.N)).data;
  gatedMlp(in.axes.rows(), in.axes['D'], in.x.data, {in.norm.data, in.eps}, gate, up, down);
}

const Register<kernels::Linear, linearOperator> linearRegistered;
const Register<kernels::QkvLinear, qkvLinearOperator> qkvLinearRegistered;
const Register<kernels::GateUpLinear, gateUpLinearOperator> gateUpLinearRegistered;
const Register<kernels::GatedMlp, gatedMlpOperator> gatedMlpRegistered;
} // namespace

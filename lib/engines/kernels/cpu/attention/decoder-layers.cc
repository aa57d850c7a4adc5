// Fused decoder: all layers, an attention block and a gated MLP each, and the final norm. The inputs are x, its positions, and the key and value
// cache of each layer. The fixed part follows the parameters: the parameters of each layer, and the addresses of the weights.
#include "attention/attention-block.h"
#include "attention/attention.h"
#include "gemm/linear.h"
#include "nn/norm.h"
#include "operator/operator.h"
#include "runtime/scratch-buffer.h"

namespace {
/** `y = x + down(act(gate(n)) ⊙ up(n))` of `n = norm(x)`, M rows. */
void mlpBlock(const kernels::MlpWeights &weights, int64_t M, int64_t D, const float *x, float *y) {
  Projection gate = projection(weights.formats[0], weights.weight, weights.bias), up = projection(weights.formats[1], weights.weight1, weights.bias1);
  Projection down = projection(weights.formats[2], weights.weight2, weights.bias2);
  gate.activation = weights.activation, down.y = y, down.residual = x;
  gatedMlp(M, D, x, {weights.norm.data, weights.eps}, gate, up, down);
}

void decoderLayers(const kernels::DecoderLayers &in, Reader &given, OperatorContext &context) {
  const int64_t D = in.axes['D'], M = in.axes['B'] * in.axes['L'], layers = in.numLayers;
  const int64_t numValues = kernels::AttentionWeights::numValues + kernels::MlpWeights::numValues;
  require(layers > 0 && given.remaining() == 2 * layers, "expected the key and value cache of each layer");
  require(kernels::DecoderLayers::numValues + layers * numValues < maxParameters, "too many layers");
  const double *tensors = given.rest() + layers * numValues;
  const double end = static_cast<double>(tensors + 1 - parameterBuffer) + tensors[0] * sizeof(TensorAddress) / sizeof(double);
  require(tensors[0] >= 1 && end <= maxParameters, "expected the addresses of the weights");
  Reader fixed(context, given.rest(), tensors);
  const Tensor y = context.output(in.x.shape);
  const NewPositions positions{in.pastLength, in.cacheFormat, in.cos, in.sin, in.mask};
  static thread_local ScratchBuffer scratch;
  float *attended = scratch.reserve(M * D);
  for (int64_t i = 0; i < layers; i++) {
    Axes axes = in.axes;
    const Tensor key = given.weight("key", in.cacheFormat, "BGCK", axes, transposedKeys), value = given.weight("value", in.cacheFormat, "BGCK", axes);
    const auto attention = kernels::AttentionWeights::read(fixed, axes);
    require(axes['S'] <= axes['C'], "pastLength + L must be at most the capacity C of the cache");
    require(axes['R'] <= axes['K'], "R must be at most K");
    attentionBlock(attention, axes, i ? y.data : in.x.data, positions, key, value, attended);
    mlpBlock(kernels::MlpWeights::read(fixed, axes), M, D, attended, y.data);
  }
  Axes axes = in.axes;
  const Tensor norm = fixed.input("norm", TF_FLOAT, "D", axes);
  for (int64_t i = 0; i < M; i++) rmsRow(D, y.data + i * D, norm.data, in.eps, y.data + i * D);
}

const Register<kernels::DecoderLayers, decoderLayers> registered;
} // namespace

// Quantization and dequantization of weights: `[N, K]` float32 to packed int32 and back. lib/quantization/formats.ts computes the same, bit
// for bit.
#include "quantization/quantize.h"
#include "quantization/dequantize.h"
#include "operator/operator.h"
#include "runtime/thread-pool.h"
#include <cmath>

namespace {
/** Rounds to the nearest bfloat16, ties to even; NaN stays NaN. */
inline uint16_t toBfloat16(float x) {
  const uint32_t bits = bitsOfFloat(x);
  if (x != x) return static_cast<uint16_t>(bits >> 16 | 64);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline float roundedToBfloat16(float x) { return floatFromBits(static_cast<uint32_t>(toBfloat16(x)) << 16); }

/** Quantizes a group of 32 uniformly to levels in [-maximum, maximum]; returns the scale in bfloat16. */
uint16_t quantizeUniform(const float *w, float maximum, int8_t *q) {
  const uint16_t scale = toBfloat16(maxAbs(w, groupSize) / maximum);
  const float step = floatFromBits(static_cast<uint32_t>(scale) << 16);
  if (step != 0)
    for (int64_t i = 0; i < groupSize; i += W) roundToInt8(clamp(load(w + i) / step, maximum), q + i);
  return scale;
}
uint16_t quantizeInt8(const float *w, int8_t *q) { return quantizeUniform(w, 127, q); }
uint16_t quantizeInt6(const float *w, int8_t *q) {
  const uint16_t scale = quantizeUniform(w, 31, q);
  for (int64_t i = 0; i < groupSize; i++) q[i] += 32;
  return scale;
}

/** For twice a weight in units of the scale, truncated, `[i - 255]`: the index of the nearest level. */
struct NearestLevels {
  uint8_t of[511];
  NearestLevels() {
    for (int position = -255; position <= 255; position++) {
      int index = 0;
      for (int j = 0; j < 15; j++) index += position > 0 ? position >= codebook[j] + codebook[j + 1] : position > codebook[j] + codebook[j + 1];
      of[position + 255] = static_cast<uint8_t>(index);
    }
  }
} const nearestLevels;

/** Indices of the levels nearest to the weights of a group; `inverse` is 2 / scale. */
void nearestLevelsOf(const float *w, float inverse, int8_t *at) {
  int32_t positions[groupSize];
  for (int64_t i = 0; i < groupSize; i += W) {
    const IVec position = __builtin_convertvector(clamp(load(w + i) * inverse, 255), IVec);
    std::memcpy(positions + i, &position, sizeof position);
  }
  for (int64_t i = 0; i < groupSize; i++) at[i] = static_cast<int8_t>(nearestLevels.of[positions[i] + 255]);
}

constexpr int numTrials = 8;
typedef int32_t Sums __attribute__((vector_size(numTrials * 4)));

/**
 * Candidate scales for a group: each maps the largest weight to one end of the codebook, or near it. For each weight, in 127ths of the
 * largest: the products with its level under each candidate scale, and the squares of the level.
 */
struct ScaleTrials {
  Sums product[255], square[255];
  ScaleTrials() {
    constexpr double ratios[] = {0.9, 0.98, 1.06, 1.16};
    for (int w = -127; w <= 127; w++)
      for (int i = 0; i < numTrials; i++) {
        const double x = w * codebook[i < 4 ? 0 : 15] / (127 * ratios[i % 4]);
        int index = 0;
        for (int j = 0; j < 15; j++) index += 2 * x > codebook[j] + codebook[j + 1];
        const int level = codebook[index];
        product[w + 127][i] = w * level, square[w + 127][i] = level * level;
      }
  }
} const scaleTrials;

/** Finds the scale, as a factor of 1/127 of the group's largest weight, with the least squared error: `product / square` of the best candidate. */
double bestRatio(const int8_t *w) {
  Sums product{}, square{};
  for (int64_t i = 0; i < groupSize; i++) product += scaleTrials.product[w[i] + 127], square += scaleTrials.square[w[i] + 127];
  double best = -1, ratio = 0;
  for (int i = 0; i < numTrials; i++) {
    const double a = product[i], b = square[i];
    if (a * a / b > best) best = a * a / b, ratio = a / b;
  }
  return ratio;
}

/** The weight with the largest absolute value, with its sign. */
float largestWeight(const float *w) {
  Vec maximum = load(w), least = maximum;
  for (int64_t i = W; i < groupSize; i += W) maximum = max(load(w + i), maximum), least = -max(-load(w + i), -least);
  float high = maximum[0], low = least[0];
  for (int i = 1; i < W; i++) high = std::max(high, maximum[i]), low = std::min(low, least[i]);
  return high >= -low ? high : low;
}

/** Quantizes a group of 32 to codebook levels, with the best of a few candidate scales; returns the scale in bfloat16. */
uint16_t quantizeInt4(const float *w, int8_t *at) {
  const float maximum = largestWeight(w), inverse = 127 / maximum;
  if (!std::isfinite(inverse)) return 0;
  int8_t rounded[groupSize];
  for (int64_t i = 0; i < groupSize; i += W) roundToInt8(load(w + i) * inverse, rounded + i);
  const float scale = roundedToBfloat16(static_cast<float>(bestRatio(rounded) * maximum / 127));
  if (!std::isnormal(scale)) return 0;
  nearestLevelsOf(w, 2 / scale, at);
  return toBfloat16(scale);
}

} // namespace

void quantizeRow(Format format, const float *w, int64_t K, int32_t *packed) {
  std::memset(packed, 0, packedColumns(format, K) * 4);
  if (format == Format::bfloat16) {
    uint16_t *p = reinterpret_cast<uint16_t *>(packed);
    for (int64_t i = 0; i < K; i++) p[i] = toBfloat16(w[i]);
    return;
  }
  uint8_t *p = reinterpret_cast<uint8_t *>(packed);
  const auto quantizeGroup = format == Format::int8 ? quantizeInt8 : format == Format::int6 ? quantizeInt6 : quantizeInt4;
  for (int64_t k = 0; k < K; k += blockSize, p += blockBytes(format)) {
    uint16_t scales[2] = {};
    int8_t q[blockSize] = {};
    for (int h = 0; h < 2; h++) {
      const int64_t from = k + h * groupSize, n = std::min(groupSize, K - from);
      if (n <= 0) break;
      float tail[groupSize] = {};
      if (n < groupSize) std::copy_n(w + from, n, tail);
      scales[h] = quantizeGroup(n < groupSize ? tail : w + from, q + h * groupSize);
    }
    std::memcpy(p, scales, 4);
    if (format == Format::int8) std::memcpy(p + 4, q, blockSize);
    else
      for (int64_t i = 0; i < groupSize; i++) p[4 + i] = static_cast<uint8_t>((q[i] & 15) | (q[groupSize + i] & 15) << 4);
    if (format == Format::int6)
      for (int64_t i = 0; i < blockSize; i++) p[4 + groupSize + i % 16] |= static_cast<uint8_t>(q[i] >> 4 << i / 16 * 2);
  }
}

namespace {
int64_t grainOf(int64_t K) { return std::max<int64_t>(1, (1 << 14) / std::max<int64_t>(1, K)); }

/** Rows `[N, K]` to `[N, packed columns]`. */
void quantizeWeight(const kernels::QuantizeWeight &in, Reader &, OperatorContext &context) {
  const int64_t N = in.axes['N'], K = in.axes['K'], columns = packedColumns(in.format, K);
  const Tensor y = context.output({N, columns}, 0, TF_INT32);
  parallel(N, grainOf(K), [&](int64_t from, int64_t to) {
    for (int64_t n = from; n < to; n++) quantizeRow(in.format, in.x.data + n * K, K, y.int32() + n * columns);
  });
}

/** Rows `[…, packed columns]` to `[…, K]`. */
void dequantizeWeight(const kernels::DequantizeWeight &in, Reader &, OperatorContext &context) {
  const int64_t K = in.columns, columns = packedColumns(in.format, K);
  std::vector<int64_t> shape = in.x.shape;
  shape.back() = K;
  const Tensor y = context.output(shape);
  parallel(in.axes.rows(), grainOf(K), [&](int64_t from, int64_t to) {
    for (int64_t n = from; n < to; n++) dequantizeRow(in.format, in.x.data + n * columns, 0, K, y.data + n * K);
  });
}

const Register<kernels::QuantizeWeight, quantizeWeight> quantizeRegistered;
const Register<kernels::DequantizeWeight, dequantizeWeight> dequantizeRegistered;
} // namespace

// The GEMM in int8 against sums in float64, for every format, edges of tiles, tails of groups, and each step of the epilogue. Compiled by
// int8-tiles.test.ts with INT8_TWIN, which computes VNNI's products without its instruction. Prints a line for each failure.
#include <cstdio>
#include <limits>
#include <random>
#include <vector>
#include "gemm/gemm.h"
#include "gemm/gemm-kind.h"
#include "gemm/tiles/int8-tiles.h"
#include "operator/parameter-buffer.h"
#include "operator/kernel-settings.h"

thread_local double *parameterBuffer = nullptr;

namespace {
std::mt19937 rng(1);
int failures = 0;

void check(bool holds, const char *what, int64_t M, int64_t K, int64_t N, Format format, double value) {
  if (holds) return;
  failures++, std::printf("format %d [%d, %d] x [%d, %d]: %s: %g\n", static_cast<int>(format), int(M), int(K), int(N), int(K), what, value);
}

struct Weight {
  Format format;
  int64_t N, K, stride = packedColumns(format, K);
  std::vector<float> words = std::vector<float>(N * stride), values = std::vector<float>(N * K), bias = std::vector<float>(N);

  /** Random codes, with scales between 0.5 and 1 in 1,000. */
  Weight(Format format, int64_t N, int64_t K) : format(format), N(N), K(K) {
    for (int64_t n = 0; n < N; n++) {
      uint8_t *block = reinterpret_cast<uint8_t *>(words.data() + n * stride);
      for (int64_t i = 0; i < blockCount(K); i++, block += blockBytes(format)) {
        for (int64_t j = 0; j < blockBytes(format); j++) block[j] = static_cast<uint8_t>(rng() % 255 - 127);
        for (int64_t j = 0; j < blockBytes(format) - 4 && format == Format::int8; j++)
          if (block[4 + j] == 0x80) block[4 + j] = 0x81; // no level is -128
        for (int h = 0; h < 2; h++) {
          const uint16_t scale = static_cast<uint16_t>(bitsOfFloat(1e-3f / (1 + rng() % 100 / 100.0f)) >> 16);
          std::memcpy(block + 2 * h, &scale, 2);
        }
      }
      dequantizeRow(format, words.data() + n * stride, 0, K, values.data() + n * K);
    }
    for (float &x : bias) x = static_cast<float>(rng() % 1000) / 1000;
  }
};

std::vector<float> product(const Weight &weight, int64_t M, const std::vector<float> &x, const float *bias, const float *gate,
                           const float *residual) {
  std::vector<float> y(M * weight.N, std::numeric_limits<float>::quiet_NaN());
  Projection projection{weight.format, weight.N, weight.stride, weight.words.data(), bias};
  projection.activation = bias ? Activation::relu : Activation::none;
  projection.y = y.data(), projection.gate = gate, projection.residual = residual;
  PackedInput packed;
  gemm(projection, {M, weight.K, x.data()}, packed);
  return y;
}

/** Relative L2 error of a product with an optional epilogue, `relu(x Wᵀ + bias) ⊙ gate + residual`. */
double errorOf(const Weight &weight, int64_t M, const std::vector<float> &x, bool withEpilogue) {
  const int64_t N = weight.N, K = weight.K;
  std::vector<float> gate(M * N), residual(M * N);
  for (float &value : gate) value = static_cast<float>(rng() % 1000) / 500;
  for (float &value : residual) value = static_cast<float>(rng() % 1000) / 1000;
  const std::vector<float> y = product(weight, M, x, withEpilogue ? weight.bias.data() : nullptr, withEpilogue ? gate.data() : nullptr,
                                       withEpilogue ? residual.data() : nullptr);
  double error = 0, size = 0;
  for (int64_t m = 0; m < M; m++)
    for (int64_t n = 0; n < N; n++) {
      double sum = 0;
      for (int64_t k = 0; k < K; k++) sum += double(x[m * K + k]) * weight.values[n * K + k];
      if (withEpilogue) sum = std::max(0.0, sum + weight.bias[n]) * gate[m * N + n] + residual[m * N + n];
      error += (sum - y[m * N + n]) * (sum - y[m * N + n]), size += sum * sum;
    }
  return std::sqrt(error / size);
}

void checkShape(Format format, int64_t M, int64_t K, int64_t N) {
  const Weight weight(format, N, K);
  std::normal_distribution<float> normal;
  std::vector<float> x(M * K), levels(M * K);
  for (float &value : x) value = normal(rng);
  const double error = errorOf(weight, M, x, false), withEpilogue = errorOf(weight, M, x, true);
  check(error > 1e-3 && error < 8e-3, "relative error of random activations", M, K, N, format, error); // 0 would be another kind of arithmetic
  check(withEpilogue < 8e-3, "relative error with an epilogue", M, K, N, format, withEpilogue);
  for (int64_t i = 0; i < M * K; i++) {
    const int64_t place = i % K % groupSize; // every group has both ends of the range
    levels[i] = (place == 5 ? 127.0f : place == 6 ? -127.0f : static_cast<float>(static_cast<int>(rng() % 255) - 127)) / 64;
  }
  const double exact = errorOf(weight, M, levels, false);
  check(K % groupSize > 0 && K % groupSize <= 6 ? exact < 8e-3 : exact < 1e-6, "relative error of activations that are levels", M, K, N, format, exact);
  const std::vector<float> y = product(weight, M, x, nullptr, nullptr, nullptr);
  x[K / 2] = std::numeric_limits<float>::quiet_NaN(), x[(M - 1) * K] = std::numeric_limits<float>::infinity();
  const std::vector<float> spoilt = product(weight, M, x, nullptr, nullptr, nullptr);
  for (int64_t i = 0; i < M * N; i++)
    if (i < N || i >= (M - 1) * N) check(!std::isfinite(spoilt[i]), "finite product of NaN or infinity", M, K, N, format, spoilt[i]);
    else check(spoilt[i] == y[i], "another row changes", M, K, N, format, spoilt[i] - y[i]);
}
} // namespace

int main() {
  std::vector<double> buffer(maxParameters + numSettings);
  parameterBuffer = buffer.data();
  for (int i = 0; i < 5; i++) buffer[maxParameters + 1 + i] = static_cast<double>(static_cast<int>(GemmKind::int8));
  for (const Format format : {Format::int8, Format::int6, Format::int4}) {
    if (gemmKind(format) != GemmKind::int8) failures++, std::printf("the kind int8 is not in use\n");
    checkShape(format, 25, 1024, 160), checkShape(format, 37, 999, 133), checkShape(format, 150, 290, 460), checkShape(format, 30, 259, 512);
  }
  std::printf("%d failures\n", failures);
  return failures > 0;
}

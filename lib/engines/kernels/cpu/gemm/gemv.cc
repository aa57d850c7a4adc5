#include "gemm/gemv.h"
#include "gemm/vnni-blocks.h"
#include "operator/kernel-settings.h"

namespace {
#if defined(__AVX2__)
constexpr bool hasIntegerDot = true;
#else
constexpr bool hasIntegerDot = false;
#endif

void quantize(const float *x, QuantizedBlock &to) {
  Vec nanOrZero{};
  for (int64_t i = 0; i < blockSize; i += W) nanOrZero += load(x + i) * 0;
  const float maximum = maxAbs(x, blockSize), inverse = maximum > 0 ? 127 / maximum : 0;
  to.scale = maximum / 127 + sum(nanOrZero); // int8 cannot hold NaN, so a NaN entry makes the scale NaN
  for (int64_t i = 0; i < blockSize; i += W) roundToInt8(load(x + i) * inverse, to.q + i);
#if defined(HAS_VNNI)
  for (int64_t i = 0; i < blockSize / 4; i++) to.offset[i] = -128 * (to.q[4 * i] + to.q[4 * i + 1] + to.q[4 * i + 2] + to.q[4 * i + 3]);
#else
  for (int64_t i = 0; i < blockSize; i++) to.size[i] = static_cast<uint8_t>(to.q[i] < 0 ? -to.q[i] : to.q[i]);
#endif
}

// Each `dot…` computes the products of one weight row with R rows of x. The weight row is a single sequential stream from memory,
// which hardware prefetchers handle best. U independent accumulators per row of x hide the latency of the multiply-adds.

template <int R, int U> void dot(const float *w, const Rows &x, int64_t m, float *y, int64_t width) {
  Vec c[R][U] = {};
  const int64_t K = x.K;
  const float *at = x.x + m * K;
  int64_t k = 0;
  for (; k + U * W <= K; k += U * W)
    for (int u = 0; u < U; u++) {
      if (u * W % 16 == 0) prefetchWeights(w + k + u * W); // once for each cache line of 64 bytes
      const Vec a = load(w + k + u * W);
      for (int r = 0; r < R; r++) c[r][u] += a * load(at + r * K + k + u * W);
    }
  for (; k < K; k += W) {
    const int64_t n = std::min<int64_t>(W, K - k);
    for (int r = 0; r < R; r++) c[r][0] += loadSome(w + k, n) * loadSome(at + r * K + k, n);
  }
  for (int r = 0; r < R; r++) {
    for (int u = 1; u < U; u++) c[r][0] += c[r][u];
    y[(m + r) * width] = sum(c[r][0]);
  }
}

/** `dot` for a bfloat16 weight row. */
template <int R, int U> void dotBfloat16(const uint16_t *w, const Rows &x, int64_t m, float *y, int64_t width) {
  Vec c[R][U] = {};
  const int64_t K = x.K;
  const float *at = x.x + m * K;
  int64_t k = 0;
  for (; k + U * W <= K; k += U * W) {
    for (int u = 0; u < U; u++) {
      if (u * W % 32 == 0) prefetchWeights(w + k + u * W); // once for each cache line of 64 bytes
      const Vec a = loadBfloat16(w + k + u * W);
      for (int r = 0; r < R; r++) c[r][u] += a * load(at + r * K + k + u * W);
    }
  }
  for (int r = 0; r < R; r++) {
    float rest = 0;
    for (int64_t j = k; j < K; j++) rest += floatFromBits(static_cast<uint32_t>(w[j]) << 16) * at[r * K + j];
    for (int u = 1; u < U; u++) c[r][0] += c[r][u];
    y[(m + r) * width] = sum(c[r][0]) + rest;
  }
}

/** `dot` for a weight row in int8, int6 or int4 blocks, with x in float32. */
template <Format format, int R> void dotBlocks(const uint8_t *w, const Rows &x, int64_t m, float *y, int64_t width) {
  Vec low[R] = {}, high[R] = {};
  const float *at = x.x + m * x.K;
  for (int64_t k = 0; k < x.K; k += blockSize, w += blockBytes(format)) {
    prefetchWeights(w);
    alignas(64) int8_t buffer[blockSize];
    const int8_t *q = levels<format>(w + 4, buffer);
    const GroupScales scales(w);
    Vec first[R] = {}, second[R] = {};
#pragma GCC unroll 16
    for (int j = 0; j < groupSize; j += W) {
      const Vec a = loadInt8(q + j), b = loadInt8(q + groupSize + j);
      for (int r = 0; r < R; r++) {
        first[r] += a * load(at + r * x.K + k + j);
        second[r] += b * load(at + r * x.K + k + groupSize + j);
      }
    }
    for (int r = 0; r < R; r++) low[r] += first[r] * scales.low, high[r] += second[r] * scales.high;
  }
  for (int r = 0; r < R; r++) y[(m + r) * width] = sum(low[r] + high[r]);
}

#if !defined(HAS_VNNI) && defined(__AVX2__)
typedef float Float8 __attribute__((vector_size(32))); // 8 lanes, also where Vec has 16

inline float sum8(Float8 x) {
  Four parts[2];
  std::memcpy(parts, &x, sizeof x);
  const Four four = parts[0] + parts[1];
  return (four[0] + four[1]) + (four[2] + four[3]);
}

/**
 * Sums of 32 int8 products in 8 lanes. `maddubs` takes one unsigned factor, so the sign of x moves to the level. Neither factor is
 * -128, so no pair sum overflows int16.
 */
inline Float8 products(__m256i level, const QuantizedBlock &x, int64_t from) {
  const __m256i signedLevel = _mm256_sign_epi8(level, _mm256_load_si256(reinterpret_cast<const __m256i *>(x.q + from)));
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_load_si256(reinterpret_cast<const __m256i *>(x.size + from)), signedLevel);
  return reinterpret_cast<Float8>(_mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1))));
}

/** `dot` for a blockwise weight row and R rows of x in int8, with AVX2: 32 products per step. */
template <Format format, int R> void dotQuantized(const uint8_t *w, const QuantizedBlock *x, int64_t count, float *y, int64_t width) {
  const __m256i table = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i *>(codebook)));
  const __m256i four = _mm256_set1_epi8(15), upper = _mm256_set1_epi32(static_cast<int>(0xffff0000));
  // each quarter of a block shifts its pair of upper bits to bits 4 and 5 of the byte
  const __m256i upperTwo = _mm256_set1_epi8(48), shift = _mm256_set1_epi8(32);
  const __m256i up = _mm256_setr_epi32(4, 4, 4, 4, 2, 2, 2, 2), down = _mm256_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2);
  Float8 sums[R] = {};
  for (int64_t k = 0; k < count; k++, w += blockBytes(format)) {
    prefetchWeights(w);
    const __m256i scales = _mm256_castps_si256(_mm256_broadcast_ss(reinterpret_cast<const float *>(w))); // broadcast without a scalar register
    const Float8 low = reinterpret_cast<Float8>(_mm256_slli_epi32(scales, 16)), high = reinterpret_cast<Float8>(_mm256_and_si256(scales, upper));
    __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(w + 4)), second;
    if (format == Format::int8) second = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(w + 4 + groupSize));
    else second = _mm256_and_si256(_mm256_srli_epi16(first, 4), four), first = _mm256_and_si256(first, four);
    if (format == Format::int4) first = _mm256_shuffle_epi8(table, first), second = _mm256_shuffle_epi8(table, second);
    if (format == Format::int6) {
      const __m256i more = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i *>(w + 4 + groupSize)));
      const auto level = [&](__m256i four, __m256i two) { return _mm256_sub_epi8(_mm256_or_si256(four, _mm256_and_si256(two, upperTwo)), shift); };
      first = level(first, _mm256_sllv_epi32(more, up)), second = level(second, _mm256_srlv_epi32(more, down));
    }
    for (int r = 0; r < R; r++) {
      const QuantizedBlock &at = x[r * count + k];
      sums[r] += (products(first, at, 0) * low + products(second, at, groupSize) * high) * at.scale;
    }
  }
  for (int r = 0; r < R; r++) y[r * width] = sum8(sums[r]);
}
#elif !defined(HAS_VNNI)
template <Format format, int R> void dotQuantized(const uint8_t *, const QuantizedBlock *, int64_t, float *, int64_t) {}
#endif
} // namespace

void GemvInput::prepareBlocks() {
  if (blockRows.x) return;
  const int64_t count = blockCount(rows.K), K = count * blockSize;
  blockRows = {rows.M, K, rows.x};
  if (K != rows.K) {
    padded.reset(new float[rows.M * K]());
    for (int64_t m = 0; m < rows.M; m++) std::copy_n(rows.x + m * rows.K, rows.K, padded.get() + m * K);
    blockRows.x = padded.get();
  }
  if (!hasIntegerDot || kernelSettings().float32Activations) return;
  quantized.reset(new QuantizedBlock[rows.M * count]);
  for (int64_t i = 0; i < rows.M * count; i++) quantize(blockRows.x + i * blockSize, quantized[i]);
}

Gemv::Gemv(Format format, const GemvInput &input, const float *weight)
    : format(format), x(isBlockwise(format) ? input.blockRows : input.rows), quantized(isBlockwise(format) ? input.quantized.get() : nullptr),
      weight(weight), stride(packedColumns(format, x.K)) {}

template <Format format, int R> void Gemv::dotBlockRow(int64_t m, const uint8_t *w, float *y, int64_t width) const {
  if (!quantized) return dotBlocks<format, R>(w, x, m, y, width);
  const int64_t count = x.K / blockSize;
  dotQuantized<format, R>(w, quantized + m * count, count, y + m * width, width);
}

/** Products of rows `[m, m + R)` of x with weight row n. */
template <int R> void Gemv::dotRow(int64_t m, int64_t n, float *y, int64_t width) const {
  constexpr int sums = R < 4 ? 4 / R : 1;
  const float *w = row(n);
  const uint8_t *bytes = reinterpret_cast<const uint8_t *>(w);
  switch (format) {
    case Format::float32: return dot<R, sums>(w, x, m, y, width);
    case Format::bfloat16: return dotBfloat16<R, sums>(reinterpret_cast<const uint16_t *>(bytes), x, m, y, width);
    case Format::int8: return dotBlockRow<Format::int8, R>(m, bytes, y, width);
    case Format::int6: return dotBlockRow<Format::int6, R>(m, bytes, y, width);
    case Format::int4: return dotBlockRow<Format::int4, R>(m, bytes, y, width);
  }
}

#if defined(HAS_VNNI)
void Gemv::multiplyOneRow(int64_t from, int64_t to, float *y) const {
  const uint8_t *bytes = reinterpret_cast<const uint8_t *>(row(from));
  const int64_t count = x.K / blockSize;
  if (format == Format::int8) dotConsecutive<Format::int8>(bytes, to - from, quantized, count, y + from);
  else if (format == Format::int6) dotConsecutive<Format::int6>(bytes, to - from, quantized, count, y + from);
  else dotConsecutive<Format::int4>(bytes, to - from, quantized, count, y + from);
}
#endif

void Gemv::multiply(int64_t from, int64_t to, float *y, int64_t width) const {
#if defined(HAS_VNNI)
  if (quantized && x.M == 1) return multiplyOneRow(from, to, y);
#endif
  for (int64_t n = from; n < to; n++)
    for (int64_t m = 0; m < x.M;) {
      const int64_t left = x.M - m;
      if (left >= 8) dotRow<8>(m, n, y + n, width), m += 8;
      else if (left >= 4) dotRow<4>(m, n, y + n, width), m += 4;
      else if (left >= 2) dotRow<2>(m, n, y + n, width), m += 2;
      else dotRow<1>(m, n, y + n, width), m += 1;
    }
}

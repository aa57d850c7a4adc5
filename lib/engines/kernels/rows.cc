#include "rows.h"
#include <cmath>
#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>
constexpr bool integers = true;
#else
constexpr bool integers = false;
#endif

namespace {
// The more sums at once, the less waiting for each: U of them for every pair, over neighbouring vectors.

/** N rows of float32 weights against R rows of x. */
template <int N, int R, int U> void dot(const float *w, const Rows &x, int64_t m, float *y, int64_t width) {
  Vec c[N][R][U] = {};
  const int64_t K = x.K;
  const float *at = x.x + m * K;
  int64_t k = 0;
  for (; k + U * W <= K; k += U * W)
    for (int i = 0; i < N; i++)
      for (int u = 0; u < U; u++) {
        const Vec a = load(w + i * K + k + u * W);
        for (int r = 0; r < R; r++) c[i][r][u] += a * load(at + r * K + k + u * W);
      }
  for (; k < K; k += W) {
    const int64_t n = std::min<int64_t>(W, K - k);
    for (int i = 0; i < N; i++)
      for (int r = 0; r < R; r++) c[i][r][0] += loadSome(w + i * K + k, n) * loadSome(at + r * K + k, n);
  }
  for (int i = 0; i < N; i++)
    for (int r = 0; r < R; r++) {
      for (int u = 1; u < U; u++) c[i][r][0] += c[i][r][u];
      y[(m + r) * width + i] = sum(c[i][r][0]);
    }
}

/** A row of bf16 weights against R rows of x. */
template <int R, int U> void dotHalves(const uint16_t *w, const Rows &x, int64_t m, float *y, int64_t width) {
  Vec c[R][U] = {};
  const float *at = x.x + m * x.K;
  int64_t k = 0;
  for (; k + U * W <= x.K; k += U * W)
    for (int u = 0; u < U; u++) {
      const Vec a = loadHalves(w + k + u * W);
      for (int r = 0; r < R; r++) c[r][u] += a * load(at + r * x.K + k + u * W);
    }
  float rest[R] = {};
  for (; k < x.K; k++)
    for (int r = 0; r < R; r++) rest[r] += ofBits(static_cast<uint32_t>(w[k]) << 16) * at[r * x.K + k];
  for (int r = 0; r < R; r++) {
    for (int u = 1; u < U; u++) c[r][0] += c[r][u];
    y[(m + r) * width] = sum(c[r][0]) + rest[r];
  }
}

/** A row of records, read as bytes, against R rows of x. */
template <Form form, int R> void dotRecords(const uint8_t *w, const Rows &x, int64_t m, float *y, int64_t width) {
  Vec low[R] = {}, high[R] = {};
  const float *at = x.x + m * x.K;
  for (int64_t k = 0; k < x.K; k += record, w += form == Form::int8 ? int8Bytes : int4Bytes) {
    alignas(64) int8_t own[record];
    const int8_t *q = reinterpret_cast<const int8_t *>(w + 4);
    if (form == Form::int4) levels(w + 4, own), q = own;
    const Scales scales(w);
    Vec sums[R][2] = {};
    for (int j = 0; j < record; j += W) {
      const Vec a = loadBytes(q + j);
      for (int r = 0; r < R; r++) sums[r][j >= half] += a * load(at + r * x.K + k + j);
    }
    for (int r = 0; r < R; r++) low[r] += sums[r][0] * scales.low, high[r] += sums[r][1] * scales.high;
  }
  for (int r = 0; r < R; r++) y[(m + r) * width] = sum(low[r] + high[r]);
}

void quantize(const float *x, QuantizedRecord &to) {
  float most = 0;
  for (int64_t i = 0; i < record; i++) most = std::max(most, std::fabs(x[i]));
  const float inverse = most > 0 ? 127 / most : 0;
  to.scale = most / 127;
  for (int64_t i = 0; i < record; i += W) {
    typedef int32_t Ints __attribute__((vector_size(W * 4)));
    const Vec magic = splat(12582912); // 1.5 · 2²³: adding it rounds
    const Ints q = __builtin_convertvector((load(x + i) * inverse + magic) - magic, Ints);
    const Bytes bytes = __builtin_convertvector(q, Bytes);
    std::memcpy(to.q + i, &bytes, sizeof bytes);
  }
  for (int64_t i = 0; i < record / 4; i++) {
    int32_t sum = 0;
    for (int j = 0; j < 4; j++) sum += to.q[4 * i + j];
    to.offset[i] = -128 * sum;
  }
}

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
/** A row of int4 records against R quantized rows of x: 64 products an instruction. */
template <int R> void dotIntegers(const uint8_t *w, const QuantizedRecord *x, int64_t count, float *y, int64_t width) {
  alignas(16) uint8_t unsignedLevels[16];
  for (int i = 0; i < 16; i++) unsignedLevels[i] = static_cast<uint8_t>(codebook[i] + 128);
  const __m512i table = _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i *>(unsignedLevels)));
  const __m512i four = _mm512_set1_epi8(15), upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  const __m512i shifts = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi32(16), 0); // 16 for the first half's lanes
  __m512 sums[R];
  for (int r = 0; r < R; r++) sums[r] = _mm512_setzero_ps();
  for (int64_t i = 0; i < count; i++, w += int4Bytes) {
    int32_t word;
    std::memcpy(&word, w, 4);
    const __m512 scales = _mm512_castsi512_ps(_mm512_and_si512(_mm512_sllv_epi32(_mm512_set1_epi32(word), shifts), upper));
    const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(w + 4));
    const __m512i numbers = _mm512_and_si512(_mm512_inserti64x4(_mm512_castsi256_si512(both), _mm256_srli_epi16(both, 4), 1), four);
    const __m512i level = _mm512_shuffle_epi8(table, numbers);
    for (int r = 0; r < R; r++) {
      const QuantizedRecord &at = x[r * count + i];
      const __m512i products = _mm512_dpbusd_epi32(_mm512_load_si512(at.offset), level, _mm512_load_si512(at.q));
      sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), _mm512_mul_ps(scales, _mm512_set1_ps(at.scale)), sums[r]);
    }
  }
  for (int r = 0; r < R; r++) y[r * width] = _mm512_reduce_add_ps(sums[r]);
}
#else
template <int R> void dotIntegers(const uint8_t *, const QuantizedRecord *, int64_t, float *, int64_t) {}
#endif
} // namespace

RowProduct::RowProduct(Form form, const Rows &given, const float *weight)
    : form(form), x(given), weight(weight), stride(rowWords(form, given.K)) {
  if (form != Form::int8 && form != Form::int4) return;
  const int64_t count = records(x.K), K = count * record;
  if (K != x.K) {
    padded.reset(new float[x.M * K]());
    for (int64_t m = 0; m < x.M; m++) std::copy_n(given.x + m * given.K, given.K, padded.get() + m * K);
    x.x = padded.get(), x.K = K;
  }
  if (form != Form::int4 || !integers) return;
  quantized.reset(new QuantizedRecord[x.M * count]);
  for (int64_t i = 0; i < x.M * count; i++) quantize(x.x + i * record, quantized[i]);
}

/** R rows of x from m on against `count` rows of the weight from n on. */
template <int R> void RowProduct::against(int64_t m, int64_t n, int64_t count, float *y, int64_t width) const {
  const auto bytes = [&](int64_t i) { return reinterpret_cast<const uint8_t *>(row(n + i)); };
  constexpr int U = R == 1 ? 4 : R == 2 ? 2 : 1;
  int64_t i = 0;
  // One row after the other is a single stream, which processors fetch ahead best. Long ones would drive x out of the first cache.
  if (form == Form::float32 && x.K > 2048)
    for (; i + 4 <= count; i += 4) dot<4, R, 1>(row(n + i), x, m, y + i, width);
  for (; i < count; i++) switch (form) {
      case Form::float32: dot<1, R, U>(row(n + i), x, m, y + i, width); break;
      case Form::bf16: dotHalves<R, U>(reinterpret_cast<const uint16_t *>(row(n + i)), x, m, y + i, width); break;
      case Form::int8: dotRecords<Form::int8, R>(bytes(i), x, m, y + i, width); break;
      case Form::int4:
        if (quantized) dotIntegers<R>(bytes(i), quantized.get() + m * (x.K / record), x.K / record, y + m * width + i, width);
        else dotRecords<Form::int4, R>(bytes(i), x, m, y + i, width);
        break;
    }
}

void RowProduct::multiply(int64_t from, int64_t to, float *y, int64_t width) const {
  constexpr int64_t block = 4; // rows of the weight stay in the first cache while all of x meets them
  for (int64_t n = from; n < to; n += block) {
    const int64_t count = std::min(block, to - n);
    for (int64_t m = 0; m < x.M;) {
      if (x.M - m >= 4) against<4>(m, n, count, y + n, width), m += 4;
      else if (x.M - m >= 2) against<2>(m, n, count, y + n, width), m += 2;
      else against<1>(m, n, count, y + n, width), m += 1;
    }
  }
}

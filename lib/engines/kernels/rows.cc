#include "rows.h"
#include <cmath>
#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>
constexpr bool integers = true;
#else
constexpr bool integers = false;
#endif

namespace {
/** Asks for what comes some lines later. */
inline void ahead(const void *p) { __builtin_prefetch(static_cast<const char *>(p) + 2048); }

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

/** N rows of bf16 weights, `stride` numbers apart, against R rows of x. */
template <int N, int R> void dotHalves(const uint16_t *w, int64_t stride, const Rows &x, int64_t m, float *y, int64_t width) {
  Vec c[N][R][2] = {};
  const float *at = x.x + m * x.K;
  int64_t k = 0;
  for (; k + 2 * W <= x.K; k += 2 * W)
    for (int i = 0; i < N; i++) {
      ahead(w + i * stride + k);
      for (int u = 0; u < 2; u++) {
        const Vec a = loadHalves(w + i * stride + k + u * W);
        for (int r = 0; r < R; r++) c[i][r][u] += a * load(at + r * x.K + k + u * W);
      }
    }
  for (int i = 0; i < N; i++)
    for (int r = 0; r < R; r++) {
      float rest = 0;
      for (int64_t j = k; j < x.K; j++) rest += ofBits(static_cast<uint32_t>(w[i * stride + j]) << 16) * at[r * x.K + j];
      y[(m + r) * width + i] = sum(c[i][r][0] + c[i][r][1]) + rest;
    }
}

/** N rows of records, `stride` bytes apart and read as bytes, against R rows of x. */
template <Form form, int N, int R> void dotRecords(const uint8_t *w, int64_t stride, const Rows &x, int64_t m, float *y, int64_t width) {
  Vec low[N][R] = {}, high[N][R] = {};
  const float *at = x.x + m * x.K;
  for (int64_t k = 0; k < x.K; k += record, w += form == Form::int8 ? int8Bytes : int4Bytes)
    for (int i = 0; i < N; i++) {
      const uint8_t *own = w + i * stride;
      ahead(own);
      alignas(64) int8_t unpacked[record];
      const int8_t *q = reinterpret_cast<const int8_t *>(own + 4);
      if (form == Form::int4) levels(own + 4, unpacked), q = unpacked;
      const Scales scales(own);
      Vec first[R] = {}, second[R] = {};
#pragma GCC unroll 16
      for (int j = 0; j < half; j += W) {
        const Vec a = loadBytes(q + j), b = loadBytes(q + half + j);
        for (int r = 0; r < R; r++) {
          first[r] += a * load(at + r * x.K + k + j);
          second[r] += b * load(at + r * x.K + k + half + j);
        }
      }
      for (int r = 0; r < R; r++) low[i][r] += first[r] * scales.low, high[i][r] += second[r] * scales.high;
    }
  for (int i = 0; i < N; i++)
    for (int r = 0; r < R; r++) y[(m + r) * width + i] = sum(low[i][r] + high[i][r]);
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
/** N rows of records, `stride` bytes apart, against R quantized rows of x: 64 products an instruction. */
template <Form form, int N, int R> void dotIntegers(const uint8_t *w, int64_t stride, const QuantizedRecord *x, int64_t count, float *y, int64_t width) {
  alignas(16) uint8_t unsignedLevels[16];
  for (int i = 0; i < 16; i++) unsignedLevels[i] = static_cast<uint8_t>(codebook[i] + 128);
  const __m512i table = _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i *>(unsignedLevels)));
  const __m512i four = _mm512_set1_epi8(15);
  __m512 sums[N][R];
  for (int i = 0; i < N; i++)
    for (int r = 0; r < R; r++) sums[i][r] = _mm512_setzero_ps();
  const __m512i shift = _mm512_set1_epi8(-128);
  for (int64_t k = 0; k < count; k++, w += form == Form::int8 ? int8Bytes : int4Bytes)
    for (int i = 0; i < N; i++) {
      const uint8_t *own = w + i * stride;
      ahead(own);
      const Scales halves(own);
      const __m512 scales = _mm512_mask_blend_ps(0x00ff, _mm512_set1_ps(halves.high), _mm512_set1_ps(halves.low));
      __m512i level; // of each weight, plus 128
      if (form == Form::int8) level = _mm512_xor_si512(_mm512_loadu_si512(own + 4), shift);
      else {
        const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(own + 4));
        const __m512i numbers = _mm512_and_si512(_mm512_inserti64x4(_mm512_castsi256_si512(both), _mm256_srli_epi16(both, 4), 1), four);
        level = _mm512_shuffle_epi8(table, numbers);
      }
      for (int r = 0; r < R; r++) {
        const QuantizedRecord &at = x[r * count + k];
        const __m512i products = _mm512_dpbusd_epi32(_mm512_load_si512(at.offset), level, _mm512_load_si512(at.q));
        sums[i][r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), _mm512_mul_ps(scales, _mm512_set1_ps(at.scale)), sums[i][r]);
      }
    }
  for (int i = 0; i < N; i++)
    for (int r = 0; r < R; r++) y[r * width + i] = _mm512_reduce_add_ps(sums[i][r]);
}
#else
template <Form form, int N, int R> void dotIntegers(const uint8_t *, int64_t, const QuantizedRecord *, int64_t, float *, int64_t) {}
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
  if (!integers) return;
  quantized.reset(new QuantizedRecord[x.M * count]);
  for (int64_t i = 0; i < x.M * count; i++) quantize(x.x + i * record, quantized[i]);
}

/** R rows of x from m on against N rows of the weight from n on. */
template <int N, int R> void RowProduct::against(int64_t m, int64_t n, float *y, int64_t width) const {
  const uint8_t *bytes = reinterpret_cast<const uint8_t *>(row(n));
  const int64_t count = x.K / record;
  switch (form) {
    case Form::float32: return dot<N, R, N == 1 ? 4 / R : 1>(row(n), x, m, y, width);
    case Form::bf16: return dotHalves<N, R>(reinterpret_cast<const uint16_t *>(bytes), stride * 2, x, m, y, width);
    case Form::int8:
      if (quantized) return dotIntegers<Form::int8, N, R>(bytes, stride * 4, quantized.get() + m * count, count, y + m * width, width);
      return dotRecords<Form::int8, N, R>(bytes, stride * 4, x, m, y, width);
    case Form::int4:
      if (quantized) return dotIntegers<Form::int4, N, R>(bytes, stride * 4, quantized.get() + m * count, count, y + m * width, width);
      return dotRecords<Form::int4, N, R>(bytes, stride * 4, x, m, y, width);
  }
}

void RowProduct::multiply(int64_t from, int64_t to, float *y, int64_t width) const {
  // Several rows at once are several streams from memory, and share what is read of x; short float32 rows are best one by one.
  const int64_t block = form == Form::float32 && x.K <= 2048 ? 1 : 4;
  for (int64_t n = from; n < to;) {
    const bool several = block > 1 && to - n >= block;
    for (int64_t m = 0; m < x.M;) {
      const int64_t left = x.M - m;
      if (several) left >= 4 ? (against<4, 4>(m, n, y + n, width), m += 4) : left >= 2 ? (against<4, 2>(m, n, y + n, width), m += 2) : (against<4, 1>(m, n, y + n, width), m += 1);
      else left >= 4 ? (against<1, 4>(m, n, y + n, width), m += 4) : left >= 2 ? (against<1, 2>(m, n, y + n, width), m += 2) : (against<1, 1>(m, n, y + n, width), m += 1);
    }
    n += several ? block : 1;
  }
}

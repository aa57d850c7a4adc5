#include "rows.h"
#if defined(__AVX2__)
#include <immintrin.h>
constexpr bool integers = true;
#else
constexpr bool integers = false;
#endif

namespace {
/** Asks for what comes some lines later. */
inline void ahead(const void *p) { __builtin_prefetch(static_cast<const char *>(p) + 4096); }

// One row of the weight against R rows of x: a single stream from memory, which processors foresee best. U sums for every pair, over
// neighbouring vectors: the more at once, the less waiting for each.

template <int R, int U> void dot(const float *w, const Rows &x, int64_t m, float *y, int64_t width) {
  Vec c[R][U] = {};
  const int64_t K = x.K;
  const float *at = x.x + m * K;
  int64_t k = 0;
  for (; k + U * W <= K; k += U * W)
    for (int u = 0; u < U; u++) {
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

/** The same of bf16 weights. */
template <int R, int U> void dotHalves(const uint16_t *w, const Rows &x, int64_t m, float *y, int64_t width) {
  Vec c[R][U] = {};
  const int64_t K = x.K;
  const float *at = x.x + m * K;
  int64_t k = 0;
  for (; k + U * W <= K; k += U * W) {
    ahead(w + k);
    for (int u = 0; u < U; u++) {
      const Vec a = loadHalves(w + k + u * W);
      for (int r = 0; r < R; r++) c[r][u] += a * load(at + r * K + k + u * W);
    }
  }
  for (int r = 0; r < R; r++) {
    float rest = 0;
    for (int64_t j = k; j < K; j++) rest += ofBits(static_cast<uint32_t>(w[j]) << 16) * at[r * K + j];
    for (int u = 1; u < U; u++) c[r][0] += c[r][u];
    y[(m + r) * width] = sum(c[r][0]) + rest;
  }
}

/** The same of records, read as bytes. */
template <Form form, int R> void dotRecords(const uint8_t *w, const Rows &x, int64_t m, float *y, int64_t width) {
  Vec low[R] = {}, high[R] = {};
  const float *at = x.x + m * x.K;
  for (int64_t k = 0; k < x.K; k += record, w += recordBytes(form)) {
    ahead(w);
    alignas(64) int8_t own[record];
    const int8_t *q = levels<form>(w + 4, own);
    const Scales scales(w);
    Vec first[R] = {}, second[R] = {};
#pragma GCC unroll 16
    for (int j = 0; j < half; j += W) {
      const Vec a = loadBytes(q + j), b = loadBytes(q + half + j);
      for (int r = 0; r < R; r++) {
        first[r] += a * load(at + r * x.K + k + j);
        second[r] += b * load(at + r * x.K + k + half + j);
      }
    }
    for (int r = 0; r < R; r++) low[r] += first[r] * scales.low, high[r] += second[r] * scales.high;
  }
  for (int r = 0; r < R; r++) y[(m + r) * width] = sum(low[r] + high[r]);
}

void quantize(const float *x, QuantizedRecord &to) {
  Vec nothing{};
  for (int64_t i = 0; i < record; i += W) nothing += load(x + i) * 0;
  const float greatest = largest(x, record), inverse = greatest > 0 ? 127 / greatest : 0;
  to.scale = greatest / 127 + sum(nothing); // NaN where an entry is no number, for a byte cannot say so
  for (int64_t i = 0; i < record; i += W) nearestBytes(load(x + i) * inverse, to.q + i);
#if defined(WITH_VNNI)
  for (int64_t i = 0; i < record / 4; i++) to.offset[i] = -128 * (to.q[4 * i] + to.q[4 * i + 1] + to.q[4 * i + 2] + to.q[4 * i + 3]);
#else
  for (int64_t i = 0; i < record; i++) to.size[i] = static_cast<uint8_t>(to.q[i] < 0 ? -to.q[i] : to.q[i]);
#endif
}

#if defined(WITH_VNNI)
/** A row of records against R quantized rows of x: 64 products an instruction. */
template <Form form, int R> void dotIntegers(const uint8_t *w, const QuantizedRecord *x, int64_t count, float *y, int64_t width) {
  alignas(16) uint8_t unsignedLevels[16];
  for (int i = 0; i < 16; i++) unsignedLevels[i] = static_cast<uint8_t>(codebook[i] + 128);
  const __m512i table = _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i *>(unsignedLevels)));
  const __m512i four = _mm512_set1_epi8(15), shift = _mm512_set1_epi8(-128), upperTwo = _mm512_set1_epi8(48);
  const __m512i turns = _mm512_setr_epi32(4, 4, 4, 4, 2, 2, 2, 2, 0, 0, 0, 0, 30, 30, 30, 30);
  __m512 sums[R];
  for (int r = 0; r < R; r++) sums[r] = _mm512_setzero_ps();
  for (int64_t k = 0; k < count; k++, w += recordBytes(form)) {
    ahead(w);
    const Scales halves(w);
    const __m512 scales = _mm512_mask_blend_ps(0x00ff, _mm512_set1_ps(halves.high), _mm512_set1_ps(halves.low));
    __m512i level; // of each weight, plus 128
    if (form == Form::int8) level = _mm512_xor_si512(_mm512_loadu_si512(w + 4), shift);
    else {
      const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(w + 4));
      const __m512i numbers = _mm512_and_si512(_mm512_inserti64x4(_mm512_castsi256_si512(both), _mm256_srli_epi16(both, 4), 1), four);
      if (form == Form::int4) level = _mm512_shuffle_epi8(table, numbers);
      else {
        const __m512i more = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i *>(w + 4 + half)));
        const __m512i two = _mm512_and_si512(_mm512_rolv_epi32(more, turns), upperTwo); // of a byte's four pairs the one of its quarter
        level = _mm512_add_epi8(_mm512_or_si512(numbers, two), _mm512_set1_epi8(96));
      }
    }
    for (int r = 0; r < R; r++) {
      const QuantizedRecord &at = x[r * count + k];
      const __m512i products = _mm512_dpbusd_epi32(_mm512_load_si512(at.offset), level, _mm512_load_si512(at.q));
      sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), _mm512_mul_ps(scales, _mm512_set1_ps(at.scale)), sums[r]);
    }
  }
  for (int r = 0; r < R; r++) y[r * width] = _mm512_reduce_add_ps(sums[r]);
}
#elif defined(__AVX2__)
typedef float Eight __attribute__((vector_size(32))); // also where vectors are of sixteen

inline float sumOf(Eight x) {
  Four parts[2];
  std::memcpy(parts, &x, sizeof x);
  const Four four = parts[0] + parts[1];
  return (four[0] + four[1]) + (four[2] + four[3]);
}

/** Sums of 32 products, in eight. The sign of x goes over to the level, for one factor must have none; no number is -128, so no pair overflows. */
inline Eight products(__m256i level, const QuantizedRecord &x, int64_t from) {
  const __m256i turned = _mm256_sign_epi8(level, _mm256_load_si256(reinterpret_cast<const __m256i *>(x.q + from)));
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_load_si256(reinterpret_cast<const __m256i *>(x.size + from)), turned);
  return reinterpret_cast<Eight>(_mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1))));
}

/** The same, 32 products at a time. */
template <Form form, int R> void dotIntegers(const uint8_t *w, const QuantizedRecord *x, int64_t count, float *y, int64_t width) {
  const __m256i table = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i *>(codebook)));
  const __m256i four = _mm256_set1_epi8(15), upper = _mm256_set1_epi32(static_cast<int>(0xffff0000));
  // of a byte's four pairs of bits, each quarter of a record has its own brought to bits 4 and 5
  const __m256i upperTwo = _mm256_set1_epi8(48), shift = _mm256_set1_epi8(32);
  const __m256i up = _mm256_setr_epi32(4, 4, 4, 4, 2, 2, 2, 2), down = _mm256_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2);
  Eight sums[R] = {};
  for (int64_t k = 0; k < count; k++, w += recordBytes(form)) {
    ahead(w);
    const __m256i scales = _mm256_castps_si256(_mm256_broadcast_ss(reinterpret_cast<const float *>(w))); // no detour by way of scalars
    const Eight low = reinterpret_cast<Eight>(_mm256_slli_epi32(scales, 16)), high = reinterpret_cast<Eight>(_mm256_and_si256(scales, upper));
    __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(w + 4)), second;
    if (form == Form::int8) second = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(w + 4 + half));
    else second = _mm256_and_si256(_mm256_srli_epi16(first, 4), four), first = _mm256_and_si256(first, four);
    if (form == Form::int4) first = _mm256_shuffle_epi8(table, first), second = _mm256_shuffle_epi8(table, second);
    if (form == Form::int6) {
      const __m256i more = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i *>(w + 4 + half)));
      const auto level = [&](__m256i four, __m256i two) { return _mm256_sub_epi8(_mm256_or_si256(four, _mm256_and_si256(two, upperTwo)), shift); };
      first = level(first, _mm256_sllv_epi32(more, up)), second = level(second, _mm256_srlv_epi32(more, down));
    }
    for (int r = 0; r < R; r++) {
      const QuantizedRecord &at = x[r * count + k];
      sums[r] += (products(first, at, 0) * low + products(second, at, half) * high) * at.scale;
    }
  }
  for (int r = 0; r < R; r++) y[r * width] = sumOf(sums[r]);
}
#else
template <Form form, int R> void dotIntegers(const uint8_t *, const QuantizedRecord *, int64_t, float *, int64_t) {}
#endif
} // namespace

RowProduct::RowProduct(Form form, const Rows &given, const float *weight)
    : form(form), x(given), weight(weight), stride(rowWords(form, given.K)) {
  if (!hasRecords(form)) return;
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

template <Form form, int R> void RowProduct::againstRecords(int64_t m, const uint8_t *w, float *y, int64_t width) const {
  if (!quantized) return dotRecords<form, R>(w, x, m, y, width);
  const int64_t count = x.K / record;
  dotIntegers<form, R>(w, quantized.get() + m * count, count, y + m * width, width);
}

/** R rows of x from m on against row n of the weight. */
template <int R> void RowProduct::against(int64_t m, int64_t n, float *y, int64_t width) const {
  constexpr int sums = R < 4 ? 4 / R : 1;
  const float *w = row(n);
  const uint8_t *bytes = reinterpret_cast<const uint8_t *>(w);
  switch (form) {
    case Form::float32: return dot<R, sums>(w, x, m, y, width);
    case Form::bf16: return dotHalves<R, sums>(reinterpret_cast<const uint16_t *>(bytes), x, m, y, width);
    case Form::int8: return againstRecords<Form::int8, R>(m, bytes, y, width);
    case Form::int6: return againstRecords<Form::int6, R>(m, bytes, y, width);
    case Form::int4: return againstRecords<Form::int4, R>(m, bytes, y, width);
  }
}

void RowProduct::multiply(int64_t from, int64_t to, float *y, int64_t width) const {
  for (int64_t n = from; n < to; n++)
    for (int64_t m = 0; m < x.M;) {
      const int64_t left = x.M - m;
      if (left >= 8) against<8>(m, n, y + n, width), m += 8;
      else if (left >= 4) against<4>(m, n, y + n, width), m += 4;
      else if (left >= 2) against<2>(m, n, y + n, width), m += 2;
      else against<1>(m, n, y + n, width), m += 1;
    }
}

// Vectors of the machine's width in the compiler's vector types: one source for AVX-512, AVX2, SSE and NEON.
#pragma once
#include <cstdint>
#include <cstring>
#include <utility>
#if defined(__AVX__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float Vec __attribute__((vector_size(W * 4)));
typedef int32_t IVec __attribute__((vector_size(W * 4)));
typedef float LooseVec __attribute__((vector_size(W * 4), aligned(4), may_alias)); // unaligned

inline Vec load(const float *p) { return *reinterpret_cast<const LooseVec *>(p); }
inline void store(float *p, Vec x) { *reinterpret_cast<LooseVec *>(p) = x; }
inline Vec splat(float x) { return x - Vec{}; }

// If one operand is NaN, the result is the second. Intrinsics, because GCC 12 compiles a comparison and a blend instead.
inline Vec max(Vec a, Vec b) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vec>(_mm512_max_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#elif defined(__AVX__)
  return reinterpret_cast<Vec>(_mm256_max_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
#else
  return a > b ? a : b;
#endif
}
inline Vec min(Vec a, Vec b) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vec>(_mm512_min_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#elif defined(__AVX__)
  return reinterpret_cast<Vec>(_mm256_min_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
#else
  return a < b ? a : b;
#endif
}

/** Square roots, rounded to the nearest float. */
inline Vec sqrt(Vec x) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vec>(_mm512_sqrt_ps(reinterpret_cast<__m512>(x)));
#elif defined(__AVX__)
  return reinterpret_cast<Vec>(_mm256_sqrt_ps(reinterpret_cast<__m256>(x)));
#else
  Vec y;
  for (int i = 0; i < W; i++) y[i] = __builtin_sqrtf(x[i]);
  return y;
#endif
}

/** Loads the first `n < W` entries; the others are zero. */
inline Vec loadSome(const float *p, int64_t n) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vec>(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1 << n) - 1), p));
#else
  Vec x{};
  std::memcpy(&x, p, n * sizeof(float));
  return x;
#endif
}
inline void storeSome(float *p, Vec x, int64_t n) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1 << n) - 1), reinterpret_cast<__m512>(x));
#else
  std::memcpy(p, &x, n * sizeof(float));
#endif
}

typedef float Four __attribute__((vector_size(16)));

/** Sums of every fourth entry. */
inline Four folded(Vec x) {
#if defined(__AVX512F__)
  const __m512 all = reinterpret_cast<__m512>(x);
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(all), 1)));
#elif defined(__AVX__)
  const __m256 half = reinterpret_cast<__m256>(x);
#else
  return reinterpret_cast<Four>(x);
#endif
#if defined(__AVX__)
  return reinterpret_cast<Four>(_mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
#endif
}

inline float sum(Vec x) {
  const Four total = folded(x);
  return (total[0] + total[1]) + (total[2] + total[3]);
}

/** The largest entry. */
inline float maximumOf(Vec x) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps(reinterpret_cast<__m512>(x));
#else
  float maximum = x[0];
  for (int i = 1; i < W; i++) maximum = x[i] > maximum ? x[i] : maximum;
  return maximum;
#endif
}

/** Four floats at each of W / 4 addresses, `stride` floats apart. */
inline Vec loadFours(const float *p, int64_t stride) {
#if defined(__AVX512F__)
  const __m512 half = _mm512_insertf32x4(_mm512_castps128_ps512(_mm_loadu_ps(p)), _mm_loadu_ps(p + stride), 1);
  return reinterpret_cast<Vec>(_mm512_insertf32x4(_mm512_insertf32x4(half, _mm_loadu_ps(p + 2 * stride), 2), _mm_loadu_ps(p + 3 * stride), 3));
#elif defined(__AVX__)
  return reinterpret_cast<Vec>(_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + stride), 1));
#else
  return load(p);
#endif
}

/** In each group of four entries: entries of `a` by their number, 0 to 3, or of `b`, 4 to 7. */
template <int... from, class V, int... i> inline V shuffleFours(V a, V b, std::integer_sequence<int, i...>) {
  constexpr int order[] = {from...}, size = sizeof(V) / sizeof(float);
#if defined(__clang__)
  return __builtin_shufflevector(a, b, (order[i % 4] % 4 + order[i % 4] / 4 * size + i / 4 * 4)...);
#else
  typedef int32_t Order __attribute__((vector_size(sizeof(V))));
  return __builtin_shuffle(a, b, Order{(order[i % 4] % 4 + order[i % 4] / 4 * size + i / 4 * 4)...});
#endif
}
template <int... from, class V> inline V shuffle(V a, V b) {
  return shuffleFours<from...>(a, b, std::make_integer_sequence<int, sizeof(V) / sizeof(float)>());
}

/** Transposes 4 x 4 blocks in place: each group of four entries of the four vectors is a block. */
template <class V> inline void transpose(V (&x)[4]) {
  const V a = shuffle<0, 4, 1, 5>(x[0], x[1]), b = shuffle<2, 6, 3, 7>(x[0], x[1]), c = shuffle<0, 4, 1, 5>(x[2], x[3]), d = shuffle<2, 6, 3, 7>(x[2], x[3]);
  x[0] = shuffle<0, 1, 4, 5>(a, c), x[1] = shuffle<2, 3, 6, 7>(a, c), x[2] = shuffle<0, 1, 4, 5>(b, d), x[3] = shuffle<2, 3, 6, 7>(b, d);
}

/** Stores the sums of W vectors as W consecutive floats. */
inline void storeSums(float *y, const Vec (&c)[W]) {
  for (int j = 0; j < W; j += 4) {
    Four x[] = {folded(c[j]), folded(c[j + 1]), folded(c[j + 2]), folded(c[j + 3])};
    transpose(x);
    const Four sums = (x[0] + x[2]) + (x[1] + x[3]);
    std::memcpy(y + j, &sums, sizeof sums);
  }
}

/** `y[i] = f(x[i])` for n entries, with a partial vector at the end. `f` receives a loader: `[&](auto at) { return at(x); }`. */
template <class F> inline void map(int64_t n, float *y, F f) {
  int64_t i = 0;
  for (; i + W <= n; i += W) store(y + i, f([&](const float *x) { return load(x + i); }));
  if (i < n) storeSome(y + i, f([&](const float *x) { return loadSome(x + i, n - i); }), n - i);
}

/** `eˣ` within 2 ulp; 0 below −88, constant above 88, NaN for NaN. Source: Cephes `expf`. */
inline Vec exp(Vec x) {
  const Vec bounded = max(splat(-88), min(splat(88), x));
  const Vec magic = splat(12582912), t = bounded * 1.44269504088896341f + magic; // 1.5 · 2²³: its low bits hold the rounded integer
  const Vec n = t - magic, r = (bounded - n * 0.693359375f) - n * -2.12194440e-4f;
  Vec p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const IVec biased = reinterpret_cast<IVec>(t) - reinterpret_cast<IVec>(magic) + 127;
  return p * reinterpret_cast<Vec>(biased << 23); // 2ⁿ, 0 for n = -127
}

/** The error function within a few ulp, a rational function on [−4, 4]. Source: Eigen. */
inline Vec erf(Vec x) {
  const Vec low = x > splat(4) ? splat(4) : x, z = low < splat(-4) ? splat(-4) : low, s = z * z;
  Vec p = s * -2.72614225801306e-10f + 2.77068142495902e-08f;
  p = p * s + -2.10102402082508e-06f;
  p = p * s + -5.69250639462346e-05f;
  p = p * s + -7.34990630326855e-04f;
  p = p * s + -2.95459980854025e-03f;
  p = p * s + -1.60960333262415e-02f;
  Vec q = s * -1.45660718464996e-05f + -2.13374055278905e-04f;
  q = q * s + -1.68282697438203e-03f;
  q = q * s + -7.37332916720468e-03f;
  q = q * s + -1.42647390514189e-02f;
  return z * p / q;
}

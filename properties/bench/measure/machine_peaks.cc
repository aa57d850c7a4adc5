// Limits of this machine, as one line of JSON: bytes a second that all threads read from memory, and operations a second (a multiplication
// and an addition are two) of float32 and of the integer instructions that the processor has.
//   g++ -O3 -march=native -pthread machine_peaks.cc -o machine_peaks && ./machine_peaks THREADS
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {
#if defined(__AVX512F__)
constexpr int bytes = 64;
#elif defined(__AVX__)
constexpr int bytes = 32;
#else
constexpr int bytes = 16;
#endif
typedef float Vec __attribute__((vector_size(bytes)));
typedef int32_t IVec __attribute__((vector_size(bytes)));

/** Keeps a value in a register, so that the compiler neither removes nor merges the work on it. */
template <class V> void keep(V &x) {
#if defined(__aarch64__)
  asm volatile("" : "+w"(x));
#else
  asm volatile("" : "+x"(x));
#endif
}

/** Seconds that `work(thread)` takes on all threads, best of `rounds`. */
double bestSeconds(int threads, int rounds, const std::function<void(int)> &work) {
  double best = 1e9;
  for (int round = 0; round < rounds; round++) {
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::thread> pool;
    for (int i = 1; i < threads; i++) pool.emplace_back(work, i);
    work(0);
    for (auto &thread : pool) thread.join();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

double bandwidth(int threads) {
  const int64_t size = int64_t{512} << 20, part = size / threads / 256 * 256;
  std::vector<char> memory(size, 1);
  const double seconds = bestSeconds(threads, 5, [&](int thread) {
    const char *from = memory.data() + thread * part;
    IVec sums[4] = {};
    for (int64_t i = 0; i + 4 * bytes <= part; i += 4 * bytes)
      for (int j = 0; j < 4; j++) {
        IVec x;
        std::memcpy(&x, from + i + j * bytes, bytes);
        sums[j] += x;
      }
    for (auto &sum : sums) keep(sum);
  });
  return static_cast<double>(part) * threads / seconds;
}

/** Operations a second of `step`, which does `perStep` of them. `step` updates twelve independent accumulators. */
template <class Accumulator, class Step> double peak(int threads, double perStep, Step given) {
  constexpr int64_t steps = 4'000'000;
  const double seconds = bestSeconds(threads, 5, [given](int) {
    Step step = given;
    Accumulator c[12] = {};
    for (int64_t i = 0; i < steps; i++) {
#pragma GCC unroll 12
      for (int j = 0; j < 12; j++) step(c[j]);
    }
#pragma GCC unroll 12
    for (int j = 0; j < 12; j++) keep(c[j]);
  });
  return perStep * 12 * steps * threads / seconds;
}
} // namespace

int main(int argc, char **argv) {
  const int threads = argc > 1 ? std::max(1, std::atoi(argv[1])) : 1;
  constexpr int lanes = bytes / 4;
  Vec a, b;
  for (int i = 0; i < lanes; i++) a[i] = 0.5f, b[i] = 0.25f;
  keep(a), keep(b);
  const double memory = bandwidth(threads);
  const double float32 = peak<Vec>(threads, 2 * lanes, [a, b](Vec &c) { c = c * a + b, keep(c); });
  std::printf("{\"bytesPerSecond\":%.4g,\"float32\":%.4g", memory, float32);
#if defined(__AVX512VNNI__)
  const __m512i x = _mm512_set1_epi32(0x01010101);
  std::printf(",\"int8\":%.4g", peak<__m512i>(threads, 128, [x](__m512i &c) { c = _mm512_dpbusd_epi32(c, x, x), keep(c); }));
#elif defined(__AVXVNNI__)
  const __m256i x = _mm256_set1_epi32(0x01010101);
  std::printf(",\"int8\":%.4g", peak<__m256i>(threads, 64, [x](__m256i &c) { c = _mm256_dpbusd_avx_epi32(c, x, x), keep(c); }));
#endif
#if defined(__AVX512BW__)
  __m512i y = _mm512_set1_epi16(1);
  std::printf(",\"int16\":%.4g", peak<__m512i>(threads, 64, [y](__m512i &c) mutable { keep(y), c = _mm512_add_epi32(c, _mm512_madd_epi16(y, y)), keep(c); }));
#elif defined(__AVX2__)
  __m256i y = _mm256_set1_epi16(1);
  std::printf(",\"int16\":%.4g", peak<__m256i>(threads, 32, [y](__m256i &c) mutable { keep(y), c = _mm256_add_epi32(c, _mm256_madd_epi16(y, y)), keep(c); }));
#endif
  std::printf("}\n");
}

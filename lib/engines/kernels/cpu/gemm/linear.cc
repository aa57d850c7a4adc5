#include "gemm/linear.h"
#include "gemm/epilogue.h"
#include "gemm/gemm.h"
#include "gemm/gemv.h"
#include "nn/norm.h"
#include "runtime/scratch-buffer.h"
#include "runtime/thread-pool.h"

namespace {
/** Rows per pass, of at most `width` entries each: bounds the scratch buffers. */
int64_t rowsPerPass(int64_t width) {
  constexpr int64_t fewest = 1032, entries = 1 << 20;
  return fewest * std::max<int64_t>(1, entries / (fewest * std::max<int64_t>(1, width)));
}

/** Largest number of rows for which reading the weight row by row is faster than dequantizing and packing it into panels. */
constexpr int64_t maxGemvRows(Format format) { return format == Format::float32 ? 8 : 24; }

/**
 * Products of a few rows with all weights in one loop. A piece is the same share of the rows of every weight, 64 KiB together, and computes
 * the projections in order: a gate is ready when a later projection reads it.
 */
void gemv(const std::vector<Projection> &projections, const Rows &x) {
  if (projections.empty()) return;
  GemvInput input(x);
  int64_t words = 0;
  for (const Projection &p : projections) {
    words += p.N * p.stride;
    if (isBlockwise(p.format)) input.prepareBlocks();
  }
  const int64_t pieces = std::max<int64_t>(1, words >> 14);
  parallel(pieces, 1, [&](int64_t first, int64_t last) {
    for (const Projection &p : projections) {
      const int64_t from = p.N * first / pieces, to = p.N * last / pieces;
      Gemv(p.format, input, p.weight).multiply(from, to, p.y, p.N);
      for (int64_t m = 0; m < x.M; m++) epilogue(p, m, from, to);
    }
  });
}

/** RMS norm of M rows, in a scratch buffer. */
const float *normalized(int64_t M, int64_t K, const float *x, const PreNorm &norm) {
  static thread_local ScratchBuffer scratch;
  float *y = scratch.reserve(M * K);
  parallel(M, std::max<int64_t>(1, (1 << 15) / std::max<int64_t>(1, K)), [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i++) rmsRow(K, x + i * K, norm.weight, norm.eps, y + i * K);
  });
  return y;
}

/** In order, because a gate may be the result of an earlier projection; neighbours of one kind share a loop. */
void multiplyAll(const std::vector<Projection> &projections, const Rows &x) {
  PackedInput packed;
  std::vector<Projection> few, small;
  int64_t entries = 0; // of the small weights
  const auto flush = [&] {
    gemv(few, x), few.clear();
    if (!small.empty()) gemmSmall(small, x);
    small.clear(), entries = 0;
  };
  for (const Projection &p : projections) {
    const bool isFew = x.M <= maxGemvRows(p.format) || x.K == 0, isSmall = !isFew && p.N * x.K <= maxSmallMatrix;
    if (isFew ? !small.empty() : !few.empty() || !isSmall || entries + p.N * x.K > maxSmallMatrix) flush();
    if (isFew) few.push_back(p);
    else if (isSmall) small.push_back(p), entries += p.N * x.K;
    else gemm(p, x, packed);
  }
  flush();
}
} // namespace

void linear(std::vector<Projection> projections, int64_t M, int64_t K, const float *x, const PreNorm &norm) {
  const int64_t maxRows = rowsPerPass(K);
  for (int64_t m = 0; m < M; m += maxRows, x += maxRows * K) {
    const int64_t rows = std::min(maxRows, M - m);
    multiplyAll(projections, {rows, K, norm.weight ? normalized(rows, K, x, norm) : x});
    for (Projection &p : projections) {
      p.y += rows * p.N;
      if (p.gate) p.gate += rows * p.N;
      if (p.residual) p.residual += rows * p.N;
    }
  }
}

void gatedMlp(int64_t M, int64_t K, const float *x, const PreNorm &norm, Projection gate, Projection up, Projection down) {
  static thread_local ScratchBuffer upScratch, innerScratch;
  const int64_t maxRows = rowsPerPass(up.N);
  for (int64_t m = 0; m < M; m += maxRows) {
    const int64_t rows = std::min(maxRows, M - m);
    gate.gate = up.y = upScratch.reserve(rows * up.N), gate.y = innerScratch.reserve(rows * up.N);
    linear({up, gate}, rows, K, x + m * K, norm);
    linear({down}, rows, up.N, gate.y);
    down.y += rows * down.N;
    if (down.residual) down.residual += rows * down.N;
  }
}

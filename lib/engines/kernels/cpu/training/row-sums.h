// Sums over rows: gradients of gains, biases and scales.
#pragma once
#include "runtime/thread-pool.h"
#include "runtime/simd.h"
#include <algorithm>
#include <memory>

/**
 * Calls `each(row, sums)` for every row; `each` adds its terms to `sums[0 … size)`. Writes the sums over all rows to `total`. The division
 * of rows does not depend on the number of threads, so results are reproducible.
 */
template <class F> inline void sumOverRows(int64_t rows, int64_t size, float *total, F each) {
  const int64_t chunks = std::max<int64_t>(1, std::min<int64_t>(32, rows / 8)), length = (rows + chunks - 1) / chunks;
  std::unique_ptr<float[]> sums(new float[chunks * size]());
  parallel(chunks, rows * size < (1 << 14) ? chunks : 1, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i++)
      for (int64_t row = i * length; row < std::min(rows, (i + 1) * length); row++) each(row, sums.get() + i * size);
  });
  for (int64_t i = 1; i < chunks; i++) {
    const float *more = sums.get() + i * size;
    map(size, sums.get(), [&](auto at) { return at(static_cast<const float *>(sums.get())) + at(more); });
  }
  std::copy_n(sums.get(), size, total);
}

// Sums over rows: gradients of gains, biases and scales.
#pragma once
#include "pool.h"
#include "simd.h"
#include <algorithm>
#include <memory>

/**
 * `each(row, sums)` for every row, which adds to `sums[0 … size)`; then the total of all, in `total`. Rows are divided in the same way
 * whatever the number of threads, so that results are the same.
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

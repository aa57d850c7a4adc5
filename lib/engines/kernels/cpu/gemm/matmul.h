// Float32 matrix products of row-major or transposed matrices. The backward passes are built from them.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

/** Entry (i, j) is `data[i·down + j·right]`; one of the two strides is 1. */
struct Matrix {
  const float *data;
  int64_t rows, columns, down, right;
  Matrix transposed() const { return {data, columns, rows, right, down}; }
  Matrix part(int64_t row, int64_t column, int64_t rows, int64_t columns) const {
    return {data + row * down + column * right, rows, columns, down, right};
  }
};

/** Row-major matrix whose rows are `stride` floats apart. */
inline Matrix rowMajor(const float *data, int64_t rows, int64_t columns, int64_t stride) { return {data, rows, columns, stride, 1}; }

/** `c[i·stride + j] = Σₚ a(i, p) b(p, j)`, or `+=` if `add`; runs on the calling thread. */
void multiply(const Matrix &a, const Matrix &b, float *c, int64_t stride, bool add);

/** `multiply` on all threads. The result is bitwise independent of the number of threads. */
void multiplyParallel(const Matrix &a, const Matrix &b, float *c, int64_t stride, bool add = false);

/** Entries of a right matrix that stay in the L2 cache. */
constexpr int64_t maxSmallMatrix = 1 << 17;

/** A product `[a.rows, columns]` with a small right matrix. */
struct SmallProduct {
  int64_t columns;
  /** Writes rows `[k, k + d)` of the columns from j on as `panel[d][tileWidth]`, zero-padded. */
  std::function<void(int64_t k, int64_t d, int64_t j, float *panel)> pack;
  float *c;
  int64_t stride;
};

/** Several products of one row-major matrix, on all threads. `done(from, to)` is called for rows whose products are complete. */
void multiplySmall(const Matrix &a, const std::vector<SmallProduct> &, bool add, const std::function<void(int64_t from, int64_t to)> &done = nullptr);

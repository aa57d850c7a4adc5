// Products of matrices as they lie in memory, transposed or not: what the way back of a layer is made of.
#pragma once
#include <cstdint>

/** Entry (i, j) is `data[i·down + j·right]`; one of the two is 1. */
struct Matrix {
  const float *data;
  int64_t rows, columns, down, right;
  Matrix transposed() const { return {data, columns, rows, right, down}; }
  Matrix part(int64_t row, int64_t column, int64_t rows, int64_t columns) const {
    return {data + row * down + column * right, rows, columns, down, right};
  }
};

/** Rows of numbers that lie behind one another, `stride` apart. */
inline Matrix rowsOf(const float *data, int64_t rows, int64_t columns, int64_t stride) { return {data, rows, columns, stride, 1}; }

/** `c[i·stride + j] = Σₚ a(i, p) b(p, j)`, or added to what is there; on the caller's thread. */
void multiply(const Matrix &a, const Matrix &b, float *c, int64_t stride, bool add);

/** The same for large matrices, on all threads; the result is that of one thread, bit for bit. */
void multiplyOnAll(const Matrix &a, const Matrix &b, float *c, int64_t stride, bool add = false);

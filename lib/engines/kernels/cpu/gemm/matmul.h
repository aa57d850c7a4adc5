// Float32 matrix products of row-major or transposed matrices. The backward passes are built from them.
#pragma once
#include <cstdint>

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

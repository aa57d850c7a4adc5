// Tensors of an operator, and errors of a call.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <vector>

/** A view of a tensor in TensorFlow's memory: float32, or int32 where the schema says so. */
struct Tensor {
  float *data = nullptr;
  std::vector<int64_t> shape;

  int32_t *int32() const { return reinterpret_cast<int32_t *>(data); }
  int64_t rank() const { return static_cast<int64_t>(shape.size()); }
  int64_t dim(int i) const { return shape[i < 0 ? shape.size() + i : i]; }
  int64_t size() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
};

/** Throws the error of an operator unless a condition holds. */
inline void require(bool holds, const char *message) {
  if (!holds) throw std::invalid_argument(message);
}

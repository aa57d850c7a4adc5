// A few rows of x against rows of a weight, in whatever form it is: one pass over the weight.
#pragma once
#include "packed.h"
#include <memory>

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define WITH_VNNI
#endif

/** Rows of x, `[M, K]`. */
struct Rows {
  int64_t M, K;
  const float *x;
};

/** 64 entries of x in int8, for products of whole numbers with those of packed weights. */
struct alignas(64) QuantizedRecord {
  int8_t q[record];
#if defined(WITH_VNNI)
  /** For each group of four entries: minus their sum times 128, since levels are shifted to be unsigned. */
  int32_t offset[record / 4];
#else
  /** Sizes of q: of two factors only one may have a sign. */
  uint8_t size[record];
#endif
  float scale;
};

/** `x weightᵀ`, x made ready once for all rows of the weight. */
class RowProduct {
 public:
  RowProduct(Form form, const Rows &x, const float *weight);
  /** `y[m · width + n] = x[m] · weight[n]` for n from `from` to `to`. */
  void multiply(int64_t from, int64_t to, float *y, int64_t width) const;

 private:
  template <int R> void against(int64_t m, int64_t n, float *y, int64_t width) const;
  template <Form form, int R> void againstRecords(int64_t m, const uint8_t *w, float *y, int64_t width) const;
  const float *row(int64_t n) const { return weight + n * stride; }

  Form form;
  Rows x; // K up to whole records where the form has records
  const float *weight;
  int64_t stride;
  std::unique_ptr<float[]> padded;
  std::unique_ptr<QuantizedRecord[]> quantized; // [M][records]
};

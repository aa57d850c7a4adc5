// Sizes of the axes of a call, and the check of its shapes against the patterns of the schema.
//
// A pattern lists axes: a letter, `1`, or a product `(HK)`; a leading `.` stands for any number of leading axes, the same ones in all
// inputs; `|` separates patterns of different ranks.
#pragma once
#include <string>
#include "quantization/format.h"
#include "operator/tensor.h"

class Axes {
 public:
  Axes() {
    for (int64_t &size : sizes) size = -1;
  }

  /** Size of an axis, -1 if no input has it. */
  int64_t operator[](char axis) const { return sizes[axis - 'A']; }

  /** Number of rows: the product of the leading axes. */
  int64_t rows() const {
    int64_t n = 1;
    for (int64_t size : leading) n *= size;
    return n;
  }

  /** False if the axis has another size already. */
  bool bind(char axis, int64_t size) {
    int64_t &bound = sizes[axis - 'A'];
    if (bound < 0) bound = size;
    return bound == size;
  }

  /** Throws unless the shape matches the pattern; the last axis is packed unless the format is float32. */
  void match(const char *name, const std::vector<int64_t> &shape, const char *pattern, Format format = Format::float32) {
    const char *at = pattern;
    for (const char *next; (next = alternative(at)); at = next)
      if (*at == '.' || rankOf(at) == static_cast<int64_t>(shape.size())) break;
    if (!matches(shape, at, format)) throw std::invalid_argument(std::string(name) + ": expected [" + pattern + "], got " + describe(shape));
  }

 private:
  static bool isEnd(char c) { return c == 0 || c == '|'; }

  /** The pattern behind the next `|`, or null. */
  static const char *alternative(const char *pattern) {
    while (!isEnd(*pattern)) pattern++;
    return *pattern ? pattern + 1 : nullptr;
  }

  /** Number of axes of a pattern, without leading ones. */
  static int64_t rankOf(const char *pattern) {
    int64_t rank = 0;
    for (; !isEnd(*pattern); pattern++) {
      if (*pattern == '(') pattern += 3;
      rank += *pattern != '.';
    }
    return rank;
  }

  bool matches(const std::vector<int64_t> &shape, const char *at, Format format) {
    const int64_t rank = static_cast<int64_t>(shape.size()), named = rankOf(at), before = rank - named;
    if (*at == '.' ? before < 0 || !bindLeading(shape, before) : before != 0) return false;
    if (*at == '.') at++;
    for (int64_t i = before; i < rank; i++) {
      const bool product = *at == '(';
      const char first = product ? at[1] : *at, second = product ? at[2] : 0;
      at += product ? 4 : 1;
      const int64_t size = shape[i], known = first == '1' ? 1 : (*this)[first];
      if (format != Format::float32 && i == rank - 1) {
        const int64_t columns = product ? known * (*this)[second] : known;
        return columns >= 0 && size == packedColumns(format, columns);
      }
      if (first == '1' ? size != 1 : product ? !bindProduct(known, second, size) : !bind(first, size)) return false;
    }
    return true;
  }

  bool bindProduct(int64_t first, char second, int64_t size) {
    if (first < 0) return false;
    const int64_t bound = (*this)[second];
    if (bound >= 0) return size == first * bound;
    return first > 0 && size % first == 0 && bind(second, size / first);
  }

  bool bindLeading(const std::vector<int64_t> &shape, int64_t count) {
    const std::vector<int64_t> given(shape.begin(), shape.begin() + count);
    if (!hasLeading) leading = given, hasLeading = true;
    return leading == given;
  }

  static std::string describe(const std::vector<int64_t> &shape) {
    std::string text = "[";
    for (size_t i = 0; i < shape.size(); i++) text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + "]";
  }

  int64_t sizes[26];
  std::vector<int64_t> leading;
  bool hasLeading = false;
};

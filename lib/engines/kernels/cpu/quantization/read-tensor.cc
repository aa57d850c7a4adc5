// Tensors read from an open file: bytes are read and converted piece by piece on all threads, so only the result is in memory as a whole.
#include <cstdlib>
#include <cstring>
#include "quantization/dequantize.h"
#include "quantization/quantize.h"
#include "runtime/file-reader.h"
#include "operator/operator.h"
#if defined(__GLIBC__)
#include <malloc.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace {
/** bfloat16 is the upper half of float32. */
float fromBfloat16(uint16_t bits) { return floatFromBits(static_cast<uint32_t>(bits) << 16); }

/** Exact, without intermediate float32 subnormals, which TensorFlow's threads flush to zero. */
float fromFloat16(uint16_t bits) {
  const uint32_t sign = (bits & 0x8000u) << 16, magnitude = (bits & 0x7fffu) << 13, exponent = bits & 0x7c00u;
  const uint32_t normal = magnitude + (112u << 23), special = magnitude | 0x7f800000u;
  const uint32_t subnormal = bitsOfFloat(floatFromBits(magnitude + (113u << 23)) - 0x1p-14f);
  return floatFromBits(sign | (exponent == 0 ? subnormal : exponent == 0x7c00u ? special : normal));
}

template <float convert(uint16_t)> void readConverted(int file, int64_t offset, int64_t size, float *y) {
  readRows(file, offset, size, 2, [&](const char *bytes, int64_t from, int64_t to) {
    const uint16_t *x = reinterpret_cast<const uint16_t *>(bytes);
    float *out = y + from;
    for (int64_t i = 0; i < to - from; i++) out[i] = convert(x[i]);
  });
}

int64_t bytesOf(StoredType type) { return type == StoredType::float32 || type == StoredType::packed ? 4 : 2; }

/** Throws unless the file has `rows` rows of `rowBytes` bytes from `offset` on, before memory for them is allocated. */
int checkRange(int64_t file, int64_t offset, int64_t rows, int64_t rowBytes) {
  require(file <= INT32_MAX, "file is not a descriptor");
  const int64_t available = fileSize(static_cast<int>(file)) - offset;
  require(rowBytes == 0 || rows == 0 || (available >= 0 && rows <= available / rowBytes), "the file is too short, or cannot be read");
  return static_cast<int>(file);
}

/** `size` numbers of a file, in float32. */
void readTensor(const kernels::ReadTensor &in, Reader &, OperatorContext &context) {
  const int file = checkRange(in.file, in.offset, in.size, bytesOf(in.dtype));
  const Tensor y = context.output({in.size});
  switch (in.dtype) {
    case StoredType::bfloat16: return readConverted<fromBfloat16>(file, in.offset, in.size, y.data);
    case StoredType::float16: return readConverted<fromFloat16>(file, in.offset, in.size, y.data);
    default: return readInto(file, in.offset, in.size * sizeof(float), reinterpret_cast<char *>(y.data));
  }
}

/**
 * Lowers glibc's malloc thresholds once, so that large blocks return to the system when they are freed. By default glibc would retain blocks
 * of up to 32 MiB in pieces, a tenth of a small quantized model. Fresh pages slow the vision encoder down by about a tenth; users that
 * quantizes weights prefers the memory.
 */
void returnFreedMemory() {
#if defined(__GLIBC__)
  [[maybe_unused]] static const bool once = [] {
    const bool setByUser = std::getenv("MALLOC_MMAP_THRESHOLD_") || std::getenv("MALLOC_TRIM_THRESHOLD_");
    return setByUser || (mallopt(M_MMAP_THRESHOLD, 1 << 20) && mallopt(M_TRIM_THRESHOLD, 1 << 20));
  }();
#endif
}

/** Memory in huge pages, which save TLB misses at every reading of a large weight; null for a small one, or where there are none. */
void *allocateHugePages([[maybe_unused]] size_t bytes) {
#if defined(__linux__)
  constexpr size_t hugePage = 2 << 20;
  void *data = nullptr;
  if (bytes < hugePage || posix_memalign(&data, hugePage, bytes) != 0) return nullptr;
  madvise(data, bytes, MADV_HUGEPAGE);
  return data;
#else
  return nullptr;
#endif
}

/** The output of a weight of `rows` rows of `words` words, for its numbers to be written. */
int32_t *weightOutput(OperatorContext &context, int64_t rows, int64_t words) {
  void *data = allocateHugePages(rows * words * sizeof(int32_t));
  if (!data) return context.output({rows, words}, 0, TF_INT32).int32();
  context.outputOf(data, {rows, words}, TF_INT32, [](void *data, size_t, void *) { std::free(data); });
  return static_cast<int32_t *>(data);
}

/** Converts a row of stored numbers to float32. */
void convertRow(StoredType type, const char *bytes, int64_t n, float *y) {
  const uint16_t *x = reinterpret_cast<const uint16_t *>(bytes);
  if (type == StoredType::float32) std::memcpy(y, bytes, n * sizeof(float));
  else if (type == StoredType::bfloat16)
    for (int64_t i = 0; i < n; i++) y[i] = fromBfloat16(x[i]);
  else
    for (int64_t i = 0; i < n; i++) y[i] = fromFloat16(x[i]);
}

/** `[rows, columns]` numbers of a file in a quantization format. Rows that are stored as they lie in memory are mapped if possible. */
void readQuantized(const kernels::ReadQuantized &in, Reader &, OperatorContext &context) {
  returnFreedMemory();
  const int64_t rows = in.rows, columns = in.columns, rowBytes = columns * bytesOf(in.dtype);
  require(columns <= INT32_MAX, "too many columns");
  const int file = checkRange(in.file, in.offset, rows, rowBytes);
  const int64_t words = in.dtype == StoredType::packed ? columns : packedColumns(in.format, columns);
  const bool asStored = in.dtype == StoredType::packed || (in.dtype == StoredType::bfloat16 && in.format == Format::bfloat16 && columns % 2 == 0);
  if (asStored)
    if (void *mapped = mapRange(file, in.offset, rows * rowBytes)) return context.outputOf(mapped, {rows, words}, TF_INT32, unmapRange);
  int32_t *y = weightOutput(context, rows, words);
  if (rows * words == 0) return;
  if (asStored) return readInto(file, in.offset, rows * rowBytes, reinterpret_cast<char *>(y));
  readRows(file, in.offset, rows, rowBytes, [&](const char *bytes, int64_t from, int64_t to) {
    std::vector<float> row(columns);
    for (int64_t n = from; n < to; n++, bytes += rowBytes) {
      int32_t *out = y + n * words;
      if (in.dtype == StoredType::bfloat16 && in.format == Format::bfloat16) {
        out[words - 1] = 0;
        std::memcpy(out, bytes, rowBytes);
        continue;
      }
      convertRow(in.dtype, bytes, columns, row.data());
      quantizeRow(in.format, row.data(), columns, out);
    }
  });
}

const Register<kernels::ReadTensor, readTensor> registered;
const Register<kernels::ReadQuantized, readQuantized> quantizedRegistered;
} // namespace

// A tensor straight from an open file: its bytes are read and widened a piece at a time, on all threads, so that nothing but the
// result is ever whole in memory.
#include "file.h"
#include "op.h"
#include "packed.h"
#include <cstdlib>
#include <cstring>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace {
/** Types of the file; the numbers are those of `storedTypes` in register.ts. */
enum class Stored { float32, bfloat16, float16, words };

float fromBits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

/** bfloat16 is the upper half of float32. */
float widenBrain(uint16_t bits) { return fromBits(static_cast<uint32_t>(bits) << 16); }

/** Exact, without float32 subnormals on the way, which TensorFlow's threads take for zero. */
float widenHalf(uint16_t bits) {
  const uint32_t sign = (bits & 0x8000u) << 16, magnitude = (bits & 0x7fffu) << 13, exponent = bits & 0x7c00u;
  const uint32_t normal = magnitude + (112u << 23), special = magnitude | 0x7f800000u;
  const float subnormal = fromBits(magnitude + (113u << 23)) - 0x1p-14f;
  uint32_t small;
  std::memcpy(&small, &subnormal, sizeof small);
  return fromBits(sign | (exponent == 0 ? small : exponent == 0x7c00u ? special : normal));
}

template <float widen(uint16_t)> void widened(int file, int64_t offset, int64_t size, float *y) {
  readRows(file, offset, size, 2, [&](const char *bytes, int64_t from, int64_t to) {
    const uint16_t *x = reinterpret_cast<const uint16_t *>(bytes);
    float *into = y + from;
    for (int64_t i = 0; i < to - from; i++) into[i] = widen(x[i]);
  });
}

/** `size` numbers of `type`, from byte `offset` of the descriptor `file`, in float32. */
void run(Call &call) {
  const int file = static_cast<int>(call.whole(0)), type = static_cast<int>(call.whole(3));
  const int64_t offset = call.whole(1), size = call.whole(2);
  require(file >= 0 && offset >= 0 && size >= 0 && type >= 0 && type <= static_cast<int>(Stored::float16), "no range of a known type");
  const Tensor y = call.output({size});
  switch (static_cast<Stored>(type)) {
    case Stored::bfloat16: return widened<widenBrain>(file, offset, size, y.data);
    case Stored::float16: return widened<widenHalf>(file, offset, size, y.data);
    case Stored::float32: return readInto(file, offset, size * sizeof(float), reinterpret_cast<char *>(y.data));
    case Stored::words: return; // they are of a packed form
  }
}

/**
 * From now on what is large goes back to the system when it is gone. glibc would soon keep all of up to 32 MiB, in pieces, which is a
 * tenth of a small packed model; new pages instead cost its vision tower about a tenth of its speed. Who packs weights wants memory.
 */
void keepLittle() {
#if defined(__GLIBC__)
  static const bool once = [] {
    const bool theirs = std::getenv("MALLOC_MMAP_THRESHOLD_") || std::getenv("MALLOC_TRIM_THRESHOLD_");
    return theirs || (mallopt(M_MMAP_THRESHOLD, 1 << 20) && mallopt(M_TRIM_THRESHOLD, 1 << 20));
  }();
  (void)once;
#endif
}

/** A row of stored numbers in float32. */
void widenRow(Stored type, const char *bytes, int64_t n, float *y) {
  const uint16_t *x = reinterpret_cast<const uint16_t *>(bytes);
  switch (type) {
    case Stored::float32: std::memcpy(y, bytes, n * sizeof(float)); break;
    case Stored::bfloat16:
      for (int64_t i = 0; i < n; i++) y[i] = widenBrain(x[i]);
      break;
    case Stored::float16:
      for (int64_t i = 0; i < n; i++) y[i] = widenHalf(x[i]);
      break;
    case Stored::words: break; // they stay what they are
  }
}

/** `[rows, columns]` numbers of `type`, from byte `offset` of the descriptor `file`, in a packed form; or words that are packed. */
void runPacked(Call &call) {
  keepLittle();
  const int file = static_cast<int>(call.whole(0));
  const int64_t offset = call.whole(1), rows = call.whole(2), columns = call.whole(3), kind = call.whole(4);
  require(file >= 0 && offset >= 0 && rows >= 0 && columns >= 0 && kind >= 0 && kind <= static_cast<int>(Stored::words), "no range of a known type");
  const Stored type = static_cast<Stored>(kind);
  if (type == Stored::words) {
    const Tensor y = call.output({rows, columns}, 0, TF_INT32);
    return readInto(file, offset, rows * columns * sizeof(int32_t), reinterpret_cast<char *>(y.words()));
  }
  const Form form = static_cast<Form>(call.whole(5));
  const int64_t words = rowWords(form, columns), size = columns * (type == Stored::float32 ? 4 : 2);
  const Tensor y = call.output({rows, words}, 0, TF_INT32);
  readRows(file, offset, rows, size, [&](const char *bytes, int64_t from, int64_t to) {
    std::vector<float> row(columns);
    for (int64_t n = from; n < to; n++, bytes += size) {
      int32_t *into = y.words() + n * words;
      if (type == Stored::bfloat16 && form == Form::bf16) {
        if (words > 0) into[words - 1] = 0;
        std::memcpy(into, bytes, size);
        continue;
      }
      widenRow(type, bytes, columns, row.data());
      packRow(form, row.data(), columns, into);
    }
  });
}

const Op read{"InternvlRead", run, {"y: float"}};
const Op readPacked{"InternvlReadPacked", runPacked, {"y: int32"}};
const Register<read> registered;
const Register<readPacked> packedRegistered;
} // namespace

// Weights to fewer bits and back: `[N, K]` float32 to `[N, words]` int32. lib/packed.ts computes the same, bit for bit.
#include "packed.h"
#include "op.h"
#include "pool.h"
#include <cmath>

namespace {
/** To the nearest bf16, ties to even; NaN stays one. */
inline uint16_t toHalf(float x) {
  const uint32_t bits = bitsOf(x);
  if (x != x) return static_cast<uint16_t>(bits >> 16 | 64);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline float roundedHalf(float x) { return ofBits(static_cast<uint32_t>(toHalf(x)) << 16); }

/** One half of a record: its scale, and its numbers up to `most` in size. */
uint16_t packEven(const float *w, float most, int8_t *q) {
  const uint16_t scale = toHalf(largest(w, half) / most);
  const float step = ofBits(static_cast<uint32_t>(scale) << 16);
  if (step != 0)
    for (int64_t i = 0; i < half; i += W) nearestBytes(bounded(load(w + i) / step, most), q + i);
  return scale;
}
uint16_t packInt8(const float *w, int8_t *q) { return packEven(w, 127, q); }
uint16_t packInt6(const float *w, int8_t *q) {
  const uint16_t scale = packEven(w, 31, q);
  for (int64_t i = 0; i < half; i++) q[i] += 32;
  return scale;
}

/** The number of the level nearest to half of what a table's index stands for: `[i - 255]`, cut off behind the point. */
struct NearestNumbers {
  uint8_t of[511];
  NearestNumbers() {
    for (int place = -255; place <= 255; place++) {
      int number = 0;
      for (int j = 0; j < 15; j++) number += place > 0 ? place >= codebook[j] + codebook[j + 1] : place > codebook[j] + codebook[j + 1];
      of[place + 255] = static_cast<uint8_t>(number);
    }
  }
} const nearestNumbers;

/** The levels nearest to weights in steps of half a scale. */
void nearest(const float *w, float inverse, int8_t *at) {
  int32_t places[half];
  for (int64_t i = 0; i < half; i += W) {
    const IVec place = __builtin_convertvector(bounded(load(w + i) * inverse, 255), IVec);
    std::memcpy(places + i, &place, sizeof place);
  }
  for (int64_t i = 0; i < half; i++) at[i] = static_cast<int8_t>(nearestNumbers.of[places[i] + 255]);
}

constexpr int tried = 8;
typedef int32_t Sums __attribute__((vector_size(tried * 4)));

/**
 * Scales that are tried for a group put its greatest weight at an end of the codebook, or beside it. For every weight, in 127ths of the
 * greatest, the products with its levels, and their squares.
 */
struct Trials {
  Sums product[255], square[255];
  Trials() {
    constexpr double stretches[] = {0.9, 0.98, 1.06, 1.16};
    for (int w = -127; w <= 127; w++)
      for (int i = 0; i < tried; i++) {
        const double x = w * codebook[i < 4 ? 0 : 15] / (127 * stretches[i % 4]);
        int number = 0;
        for (int j = 0; j < 15; j++) number += 2 * x > codebook[j] + codebook[j + 1];
        const int level = codebook[number];
        product[w + 127][i] = w * level, square[w + 127][i] = level * level;
      }
  }
} const trials;

/** By which 127th of the greatest weight a group is best divided: with the levels of each trial, `product / square` leaves least. */
double bestRatio(const int8_t *w) {
  Sums product{}, square{};
  for (int64_t i = 0; i < half; i++) product += trials.product[w[i] + 127], square += trials.square[w[i] + 127];
  double best = -1, ratio = 0;
  for (int i = 0; i < tried; i++) {
    const double a = product[i], b = square[i];
    if (a * a / b > best) best = a * a / b, ratio = a / b;
  }
  return ratio;
}

/** The weight of greatest size. */
float greatest(const float *w) {
  Vec most = load(w), least = most;
  for (int64_t i = W; i < half; i += W) most = max(load(w + i), most), least = -max(-load(w + i), -least);
  float high = most[0], low = least[0];
  for (int i = 1; i < W; i++) high = std::max(high, most[i]), low = std::min(low, least[i]);
  return high >= -low ? high : low;
}

/** The same of a codebook: the scale is the best of a few, with the levels that each would have. */
uint16_t packInt4(const float *w, int8_t *at) {
  const float most = greatest(w), inverse = 127 / most;
  if (!std::isfinite(inverse)) return 0;
  int8_t rounded[half];
  for (int64_t i = 0; i < half; i += W) nearestBytes(load(w + i) * inverse, rounded + i);
  const float scale = roundedHalf(static_cast<float>(bestRatio(rounded) * most / 127));
  if (!std::isnormal(scale)) return 0;
  nearest(w, 2 / scale, at);
  return toHalf(scale);
}

} // namespace

void packRow(Form form, const float *w, int64_t K, int32_t *words) {
  std::memset(words, 0, rowWords(form, K) * 4);
  if (form == Form::bf16) {
    uint16_t *p = reinterpret_cast<uint16_t *>(words);
    for (int64_t i = 0; i < K; i++) p[i] = toHalf(w[i]);
    return;
  }
  uint8_t *p = reinterpret_cast<uint8_t *>(words);
  const auto packHalf = form == Form::int8 ? packInt8 : form == Form::int6 ? packInt6 : packInt4;
  for (int64_t k = 0; k < K; k += record, p += recordBytes(form)) {
    uint16_t scales[2] = {};
    int8_t q[record] = {};
    for (int h = 0; h < 2; h++) {
      const int64_t from = k + h * half, n = std::min(half, K - from);
      if (n <= 0) break;
      float rest[half] = {};
      if (n < half) std::copy_n(w + from, n, rest);
      scales[h] = packHalf(n < half ? rest : w + from, q + h * half);
    }
    std::memcpy(p, scales, 4);
    if (form == Form::int8) std::memcpy(p + 4, q, record);
    else
      for (int64_t i = 0; i < half; i++) p[4 + i] = static_cast<uint8_t>((q[i] & 15) | (q[half + i] & 15) << 4);
    if (form == Form::int6)
      for (int64_t i = 0; i < record; i++) p[4 + half + i % 16] |= static_cast<uint8_t>(q[i] >> 4 << i / 16 * 2);
  }
}

namespace {
Form formOf(const Call &call) { return static_cast<Form>(call.whole(0)); }

/** Rows `[N, K]` to `[N, words]`. */
void pack(Call &call) {
  const Tensor x = call.input(0);
  require(x.shape.size() == 2, "expected rows [N, K]");
  const int64_t N = x.dim(0), K = x.dim(1), words = rowWords(formOf(call), K);
  const Tensor y = call.output({N, words}, 0, TF_INT32);
  parallel(N, std::max<int64_t>(1, (1 << 14) / std::max<int64_t>(1, K)), [&](int64_t from, int64_t to) {
    for (int64_t n = from; n < to; n++) packRow(formOf(call), x.data + n * K, K, y.words() + n * words);
  });
}

/** Rows `[…, words]` to `[…, K]`. */
void unpack(Call &call) {
  const Tensor x = call.input(0, TF_INT32);
  const int64_t K = call.whole(1), words = rowWords(formOf(call), K);
  require(!x.shape.empty() && x.dim(-1) == words, "the words of a row are not those of K weights");
  std::vector<int64_t> shape = x.shape;
  shape.back() = K;
  const Tensor y = call.output(shape);
  parallel(x.rows(), std::max<int64_t>(1, (1 << 14) / std::max<int64_t>(1, K)), [&](int64_t from, int64_t to) {
    for (int64_t n = from; n < to; n++) unpackRow(formOf(call), x.data + n * words, 0, K, y.data + n * K);
  });
}

const Op packOp{"InternvlPack", pack, {"y: int32"}};
const Op unpackOp{"InternvlUnpack", unpack};
const Register<packOp> packRegistered;
const Register<unpackOp> unpackRegistered;
} // namespace

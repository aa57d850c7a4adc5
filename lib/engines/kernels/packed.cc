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

/** One half of a record: its scale, and its numbers in bytes. */
uint16_t packInt8(const float *w, int64_t n, int8_t *q) {
  float most = 0;
  for (int64_t i = 0; i < n; i++) most = std::max(most, std::fabs(w[i]));
  const uint16_t scale = toHalf(most / 127);
  const float step = ofBits(static_cast<uint32_t>(scale) << 16);
  for (int64_t i = 0; i < n; i++)
    q[i] = step == 0 ? 0 : static_cast<int8_t>(std::min(127.0f, std::max(-127.0f, std::nearbyint(w[i] / step))));
  return scale;
}

/** Between neighbouring levels. */
inline float middle(int i) { return 0.5f * (codebook[i] + codebook[i + 1]); }

/** The levels nearest to `w / scale`: their numbers and themselves. */
void nearest(const float *w, float scale, int8_t *at, float *level) {
  for (int64_t i = 0; i < half; i += W) {
    const Vec x = load(w + i) / scale;
    Vec number{}, value = splat(codebook[0]);
    for (int j = 0; j < 15; j++) {
      const auto above = x > splat(middle(j));
      number += above ? splat(1) : Vec{};
      value += above ? splat(codebook[j + 1] - codebook[j]) : Vec{};
    }
    store(level + i, value);
    for (int j = 0; j < W; j++) at[i + j] = static_cast<int8_t>(number[j]);
  }
}

/** Products of float32 are exact in double, so that it makes no difference whether a compiler fuses them with the sum. */
double product(const float *a, const float *b) {
  double parts[8] = {};
  for (int64_t i = 0; i < half; i++) parts[i % 8] += static_cast<double>(a[i]) * b[i];
  double sum = 0;
  for (const double part : parts) sum += part;
  return sum;
}

double squaredError(const float *w, const float *level, float scale) {
  float left[half];
  for (int64_t i = 0; i < half; i++) left[i] = static_cast<float>(w[i] - static_cast<double>(scale) * level[i]);
  return product(left, left);
}

constexpr float stretches[] = {0.9f, 1.0f, 1.1f};

/** The scale of least squared error among a few that put the greatest weight near an end of the codebook; then the best one for its levels. */
uint16_t packInt4(const float *given, int64_t n, int8_t *at) {
  float w[half] = {}, level[half];
  std::copy(given, given + n, w);
  float most = 0;
  for (int64_t i = 0; i < half; i++)
    if (std::fabs(w[i]) > std::fabs(most)) most = w[i];
  if (most == 0) {
    std::fill(at, at + half, 0);
    return 0;
  }
  double best = INFINITY;
  float scale = 0;
  const auto attempt = [&](float wanted) {
    const float s = roundedHalf(wanted);
    if (s == 0 || !std::isfinite(s)) return;
    int8_t numbers[half];
    nearest(w, s, numbers, level);
    const double error = squaredError(w, level, s);
    if (error < best) best = error, scale = s, std::copy(numbers, numbers + half, at);
  };
  for (const float end : {static_cast<float>(codebook[0]), static_cast<float>(codebook[15])})
    for (const float stretch : stretches) attempt(most / end * stretch);
  for (int64_t i = 0; i < half; i++) level[i] = codebook[at[i]];
  attempt(static_cast<float>(product(w, level) / product(level, level)));
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
  for (int64_t k = 0; k < K; k += record, p += form == Form::int8 ? int8Bytes : int4Bytes) {
    uint16_t scales[2] = {};
    int8_t q[record] = {};
    for (int h = 0; h < 2; h++) {
      const int64_t from = k + h * half, n = std::min(half, K - from);
      if (n > 0) scales[h] = (form == Form::int8 ? packInt8 : packInt4)(w + from, n, q + h * half);
    }
    std::memcpy(p, scales, 4);
    if (form == Form::int8) std::memcpy(p + 4, q, record);
    else
      for (int64_t i = 0; i < half; i++) p[4 + i] = static_cast<uint8_t>(q[i] | q[half + i] << 4);
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

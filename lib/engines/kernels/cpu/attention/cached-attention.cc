#include "attention/cached-attention.h"
#include "attention/attention.h"
#include "nn/norm.h"
#include "nn/rope.h"
#include "operator/operator.h"
#include "quantization/quantize.h"
#include "runtime/scratch-buffer.h"
#include "runtime/thread-pool.h"

namespace {
/** One head of a query or key: normalized, if there is a norm, and rotated. */
void prepareHead(int64_t K, int64_t R, const Tensor &norm, float eps, const float *x, const float *cos, const float *sin, float *y) {
  static thread_local ScratchBuffer scratch;
  if (norm.data) {
    float *normalized = scratch.reserve(K);
    rmsRow(K, x, norm.data, eps, normalized);
    x = normalized;
  }
  rotate(K, R, x, cos, sin, y);
}

/** Copies the K numbers of a position into the cache, quantized if the cache is. */
void storePosition(const Heads &cache, const float *x, int64_t b, int64_t h, int64_t l) {
  if (cache.transposed) {
    static thread_local ScratchBuffer scratch;
    float *packed = scratch.reserve(cache.columns());
    quantizeRow(cache.format, x, cache.K, reinterpret_cast<int32_t *>(packed));
    for (int64_t w = 0; w < cache.columns(); w++) *cache.word(b, h, w, l) = packed[w];
  } else if (cache.format == Format::float32) std::copy_n(x, cache.K, cache.row(b, h, l));
  else quantizeRow(cache.format, x, cache.K, reinterpret_cast<int32_t *>(cache.row(b, h, l)));
}
} // namespace

void attendCached(const AttentionOptions &options, const NewPositions &positions, const NewHeads &heads, const Tensor &key, const Tensor &value, float *out) {
  const int64_t B = heads.B, L = heads.L, K = heads.K, H = options.numHeads, G = options.numKeyValueHeads;
  const int64_t past = positions.pastLength, S = past + L, capacity = value.dim(2), R = positions.cos.dim(-1);
  if (B * L * H * K == 0) return;
  const bool sharedTables = positions.cos.dim(0) == 1;
  const Format format = positions.cacheFormat;
  const Heads keys{key.data, B, G, S, K, false, capacity, format, format == transposedKeys}, values{value.data, B, G, S, K, false, capacity, format};
  static thread_local ScratchBuffer scratch;
  float *rotated = scratch.reserve(B * L * H * K);
  parallel(B * L, std::max<int64_t>(1, (1 << 14) / ((H + G) * K)), [&](int64_t from, int64_t to) {
    static thread_local ScratchBuffer rowScratch;
    float *newKey = rowScratch.reserve(K);
    for (int64_t i = from; i < to; i++) {
      const int64_t b = i / L, l = i % L, angle = ((sharedTables ? 0 : b) * L + l) * R;
      const float *cos = positions.cos.data + angle, *sin = positions.sin.data + angle;
      for (int64_t h = i * H; h < (i + 1) * H; h++) prepareHead(K, R, options.qNorm, options.headEps, heads.q + h * K, cos, sin, rotated + h * K);
      for (int64_t g = 0; g < G; g++) {
        const int64_t at = (i * G + g) * K;
        prepareHead(K, R, options.kNorm, options.headEps, heads.k + at, cos, sin, newKey);
        storePosition(keys, newKey, b, g, past + l);
        storePosition(values, heads.v + at, b, g, past + l);
      }
    }
  });
  const Heads queries{rotated, B, H, L, K, true, L}, outputs{out, B, H, L, K, true, L};
  const bool sharedMask = positions.mask.data && positions.mask.dim(0) == 1;
  attend({queries, keys, values, outputs, positions.mask.data, options.sinks.data, sharedMask, options.scale, true, options.window, options.bfloat16});
}

namespace {
void cachedAttention(const kernels::CachedAttention &in, Reader &, OperatorContext &context) {
  const NewPositions positions{in.pastLength, in.cacheFormat, in.cos, in.sin, in.mask};
  const AttentionOptions options{in.axes['H'], in.axes['G'], in.window, in.scale, in.headEps, in.qNorm, in.kNorm, in.sinks};
  const NewHeads heads{in.axes['B'], in.axes['L'], in.axes['K'], in.q.data, in.k.data, in.v.data};
  attendCached(options, positions, heads, in.key, in.value, context.output(in.q.shape).data);
}

const Register<kernels::CachedAttention, cachedAttention> registered;
} // namespace

// `act(x Wᵀ + b)`: x `[…, K]`, weight `[N, K]` as the checkpoint has it, bias `[N]` if there is one.
#include "activation.h"
#include "gemm.h"
#include "op.h"
#include "pool.h"
#include <memory>

namespace {
struct Problem {
  int64_t M, N, K;
  const float *x, *weight, *bias;
  Activation activation;
  float *y;
};

// --- Few rows: the weights are read once, as fast as memory gives them.

constexpr int64_t fewRows = 8;

/**
 * N rows of the weight against R rows of x. The more sums at once, the less waiting for each: U of them for every pair, over
 * neighbouring vectors.
 */
template <int N, int R, int U> void dot(const Problem &p, const float *x, const float *w, float *y) {
  Vec c[N][R][U] = {};
  int64_t k = 0;
  for (; k + U * W <= p.K; k += U * W)
    for (int i = 0; i < N; i++)
      for (int u = 0; u < U; u++) {
        const Vec a = load(w + i * p.K + k + u * W);
        for (int r = 0; r < R; r++) c[i][r][u] += a * load(x + r * p.K + k + u * W);
      }
  for (; k < p.K; k += W) {
    const int64_t n = std::min<int64_t>(W, p.K - k);
    for (int i = 0; i < N; i++)
      for (int r = 0; r < R; r++) c[i][r][0] += loadSome(w + i * p.K + k, n) * loadSome(x + r * p.K + k, n);
  }
  for (int i = 0; i < N; i++)
    for (int r = 0; r < R; r++) {
      for (int u = 1; u < U; u++) c[i][r][0] += c[i][r][u];
      y[r * p.N + i] = sum(c[i][r][0]);
    }
}

void finish(const Problem &p, float *y, int64_t from, int64_t to) {
  if (!p.bias && p.activation == Activation::none) return;
  const float *bias = p.bias ? p.bias + from : nullptr;
  map(to - from, y + from, [&](auto at) { return activate(p.activation, bias ? at(y + from) + at(bias) : at(y + from)); });
}

/** N rows of the weight against all rows of x, up to four at a time. */
template <int N, int U> void against(const Problem &p, int64_t n) {
  const float *w = p.weight + n * p.K;
  for (int64_t m = 0; m < p.M;) {
    const float *x = p.x + m * p.K;
    float *y = p.y + m * p.N + n;
    if (p.M - m >= 4) dot<N, 4, 1>(p, x, w, y), m += 4;
    else if (p.M - m >= 2) dot<N, 2, std::max(1, U / 2)>(p, x, w, y), m += 2;
    else dot<N, 1, U>(p, x, w, y), m += 1;
  }
}

void streamed(const Problem &p) {
  // One row after the other is a single stream, which processors fetch ahead best. Long ones would drive x out of the first cache.
  const bool several = p.K > 2048;
  const int64_t grain = std::max<int64_t>(4, (1 << 16) / p.K / 4 * 4); // 256 KiB of weights
  parallel(p.N, grain, [&](int64_t from, int64_t to) {
    int64_t n = from;
    if (several)
      for (; n + 4 <= to; n += 4) against<4, 1>(p, n);
    for (; n < to; n++) against<1, 4>(p, n);
    for (int64_t m = 0; m < p.M; m++) finish(p, p.y + m * p.N, from, to);
  });
}

// --- Many rows: tiles in registers, x packed once, the weight packed by whoever needs a piece of it.

constexpr int64_t R = tileRows, width = tileVecs * W;
constexpr int64_t stripe = 2 * width;        // columns of y that one thread makes at a time
constexpr int64_t depth = 512;               // of K: a panel of x stays in the first cache, a stripe of weights in the second
constexpr int64_t maxRows = R * (1032 / R);  // of x at a time: bounds the packed copy

/** Memory that lives on between calls, for to get it anew from the system costs as much as a tenth of a product. */
float *scratch(std::unique_ptr<float[]> &kept, int64_t &size, int64_t wanted) {
  if (size < wanted) kept.reset(), kept.reset(new float[wanted]), size = wanted;
  return kept.get();
}

/** One tile of y, added to what is there unless it is the first of its K. */
void tile(const Problem &p, bool first, int64_t k, const float *a, const float *b, float *y, int64_t rows, int64_t columns) {
  Vec c[tileRows][tileVecs] = {};
  multiply<tileRows, tileVecs>(k, a, b, width, c);
  if (columns == width) {
    for (int64_t r = 0; r < rows; r++)
      for (int v = 0; v < tileVecs; v++) store(y + r * p.N + v * W, first ? c[r][v] : load(y + r * p.N + v * W) + c[r][v]);
    return;
  }
  float edge[tileRows][width];
  std::memcpy(edge, c, sizeof c);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t j = 0; j < columns; j++) y[r * p.N + j] = first ? edge[r][j] : y[r * p.N + j] + edge[r][j];
}

void tiled(const Problem &p) {
  static std::unique_ptr<float[]> kept;
  static int64_t keptSize = 0;
  const int64_t panels = (p.M + R - 1) / R;
  float *packed = scratch(kept, keptSize, panels * R * p.K); // [K / depth][panels][depth][R]
  parallel(panels, 4, [&](int64_t from, int64_t to) {
    for (int64_t k = 0; k < p.K; k += depth)
      for (int64_t i = from; i < to; i++) {
        const int64_t d = std::min(depth, p.K - k);
        pack<R>(packed + k * panels * R + i * d * R, p.x + i * R * p.K + k, p.K, std::min(R, p.M - i * R), d);
      }
  });
  parallel((p.N + stripe - 1) / stripe, 1, [&](int64_t from, int64_t to) {
    static thread_local std::unique_ptr<float[]> own(new float[stripe * depth]);
    for (int64_t n = from * stripe; n < std::min(to * stripe, p.N); n += stripe) {
      const int64_t end = std::min(n + stripe, p.N);
      for (int64_t k = 0; k < p.K; k += depth) {
        const int64_t d = std::min(depth, p.K - k);
        for (int64_t j = n; j < end; j += width)
          pack<width>(own.get() + (j - n) * d, p.weight + j * p.K + k, p.K, std::min(width, end - j), d);
        for (int64_t i = 0; i < panels; i++) {
          const int64_t rows = std::min(R, p.M - i * R);
          for (int64_t j = n; j < end; j += width)
            tile(p, k == 0, d, packed + k * panels * R + i * d * R, own.get() + (j - n) * d, p.y + i * R * p.N + j, rows,
                 std::min(width, end - j));
          if (k + d == p.K)
            for (int64_t r = 0; r < rows; r++) finish(p, p.y + (i * R + r) * p.N, n, end);
        }
      }
    }
  });
}

void run(Call &call) {
  const Tensor x = call.input(0), weight = call.input(1), bias = call.inputs() > 2 ? call.input(2) : Tensor{};
  require(weight.shape.size() == 2 && !x.shape.empty() && x.dim(-1) == weight.dim(1), "x [.., K] and weight [N, K] must agree");
  require(!bias.data || bias.size() == weight.dim(0), "bias must be [N]");
  std::vector<int64_t> shape = x.shape;
  shape.back() = weight.dim(0);
  const Tensor y = call.output(shape);
  const Problem all{x.rows(), weight.dim(0), weight.dim(1), x.data, weight.data, bias.data,
                    static_cast<Activation>(static_cast<int>(call.attributes[0])), y.data};
  for (int64_t m = 0; m < all.M; m += maxRows) {
    Problem part = all;
    part.M = std::min(maxRows, all.M - m), part.x += m * all.K, part.y += m * all.N;
    part.M <= fewRows ? streamed(part) : tiled(part);
  }
}

const Op affine{"InternvlAffine", {"activation"}, run};
const Register<affine> registered;
} // namespace

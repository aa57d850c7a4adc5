// `act(x Wᵀ + b)`: x `[…, K]`, weights `[N, K]` as the checkpoint has them, or packed; biases `[N]` where there are any.
// A second weight is gated by the first: `act(x W₀ᵀ + b₀) ⊙ (x W₁ᵀ + b₁)`. Three give a result each. A norm of x may come before,
// something to add after: what stands around a product costs no op of its own.
#include "activation.h"
#include "gemm.h"
#include "norm.h"
#include "op.h"
#include "packed.h"
#include "pool.h"
#include "rows.h"
#include <memory>

namespace {
/** One weight, where its product goes, and what is done to it there. */
struct Map {
  Form form;
  int64_t N, stride; // numbers of a row of the weight
  const float *weight, *bias;
  Activation activation;
  float *y;                     // [M, N]
  const float *times = nullptr; // [M, N], or null
  const float *plus = nullptr;  // [M, N], or null

  const float *row(int64_t n) const { return weight + n * stride; }
};

/** What comes after the product, for columns `[from, to)` of row m. */
void finish(const Map &map, int64_t m, int64_t from, int64_t to) {
  if (!map.bias && map.activation == Activation::none && !map.times && !map.plus) return;
  float *y = map.y + m * map.N + from;
  const float *bias = map.bias ? map.bias + from : nullptr, *times = map.times ? map.times + m * map.N + from : nullptr;
  const float *plus = map.plus ? map.plus + m * map.N + from : nullptr;
  ::map(to - from, y, [&](auto at) {
    const Vec product = activate(map.activation, bias ? at(y) + at(bias) : at(y));
    const Vec gated = times ? product * at(times) : product;
    return plus ? gated + at(plus) : gated;
  });
}

// --- Few rows: the weights are read once, as fast as memory gives them.

constexpr int64_t fewRows = 8;

void streamed(const Map &map, const Rows &x) {
  const int64_t grain = std::max<int64_t>(4, (1 << 16) / std::max<int64_t>(1, map.stride) / 4 * 4); // 256 KiB of weights
  const RowProduct product(map.form, x, map.weight);
  parallel(map.N, grain, [&](int64_t from, int64_t to) {
    product.multiply(from, to, map.y, map.N);
    for (int64_t m = 0; m < x.M; m++) finish(map, m, from, to);
  });
}

// --- Many rows: tiles in registers, x packed once, the weight packed by whoever needs a piece of it.

constexpr int64_t R = tileRows, width = tileVecs * W;
constexpr int64_t stripe = 2 * width;        // columns of y that one thread makes at a time
constexpr int64_t depth = 512;               // of K: a panel of x stays in the first cache, a stripe of weights in the second
constexpr int64_t maxRows = R * (1032 / R);  // of x at a time: bounds the packed copy
static_assert(depth % record == 0, "packed rows are read by whole records");

/** Memory that lives on between calls, for to get it anew from the system costs as much as a tenth of a product. */
struct Kept {
  std::unique_ptr<float[]> memory;
  int64_t size = 0;
  float *of(int64_t wanted) {
    if (size < wanted) memory.reset(), memory.reset(new float[wanted]), size = wanted;
    return memory.get();
  }
};

/** One tile of y, added to what is there unless it is the first of its K. */
void tile(int64_t k, const float *a, const float *b, float *y, int64_t stride, bool first, int64_t rows, int64_t columns) {
  Vec c[tileRows][tileVecs] = {};
  multiply<tileRows, tileVecs>(k, a, b, width, c);
  if (columns == width) {
    for (int64_t r = 0; r < rows; r++)
      for (int v = 0; v < tileVecs; v++) store(y + r * stride + v * W, first ? c[r][v] : load(y + r * stride + v * W) + c[r][v]);
    return;
  }
  float edge[tileRows][width];
  std::memcpy(edge, c, sizeof c);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t j = 0; j < columns; j++) y[r * stride + j] = first ? edge[r][j] : y[r * stride + j] + edge[r][j];
}

/** Rows `[n, n + present)` and columns `[k, k + d)` of a weight as a panel. */
void panel(const Map &map, int64_t n, int64_t present, int64_t k, int64_t d, float *into) {
  if (map.form == Form::float32) return pack<width>(into, map.row(n) + k, map.stride, present, d);
  static thread_local std::unique_ptr<float[]> rows(new float[width * depth]);
  for (int64_t r = 0; r < present; r++) unpackRow(map.form, map.row(n + r), k, d, rows.get() + r * depth);
  pack<width>(into, rows.get(), depth, present, d);
}

/** x in panels: `[K / depth][panels][depth][R]`. */
const float *packedRows(const Rows &x) {
  static thread_local Kept kept;
  const int64_t panels = (x.M + R - 1) / R;
  float *packed = kept.of(panels * R * x.K);
  parallel(panels, 4, [&](int64_t from, int64_t to) {
    for (int64_t k = 0; k < x.K; k += depth)
      for (int64_t i = from; i < to; i++) {
        const int64_t d = std::min(depth, x.K - k);
        pack<R>(packed + k * panels * R + i * d * R, x.x + i * R * x.K + k, x.K, std::min(R, x.M - i * R), d);
      }
  });
  return packed;
}

void tiled(const Map &map, const Rows &x, const float *packed) {
  const int64_t panels = (x.M + R - 1) / R;
  parallel((map.N + stripe - 1) / stripe, 1, [&](int64_t from, int64_t to) {
    static thread_local std::unique_ptr<float[]> own(new float[stripe * depth]);
    for (int64_t n = from * stripe; n < std::min(to * stripe, map.N); n += stripe) {
      const int64_t end = std::min(n + stripe, map.N);
      for (int64_t k = 0; k < x.K; k += depth) {
        const int64_t d = std::min(depth, x.K - k);
        for (int64_t j = n; j < end; j += width) panel(map, j, std::min(width, end - j), k, d, own.get() + (j - n) * d);
        for (int64_t i = 0; i < panels; i++) {
          const int64_t rows = std::min(R, x.M - i * R);
          for (int64_t j = n; j < end; j += width)
            tile(d, packed + k * panels * R + i * d * R, own.get() + (j - n) * d, map.y + i * R * map.N + j, map.N, k == 0, rows,
                 std::min(width, end - j));
          if (k + d == x.K)
            for (int64_t r = 0; r < rows; r++) finish(map, i * R + r, n, end);
        }
      }
    }
  });
}

/** All products of some rows of x. */
void multiplyAll(const std::vector<Map> &maps, const Rows &x) {
  const float *packed = x.M > fewRows ? packedRows(x) : nullptr;
  for (const Map &map : maps) packed ? tiled(map, x, packed) : streamed(map, x);
}

/** Rows of x, or their norms. */
Rows rowsOf(const Tensor &x, const Tensor &norm, float eps, int64_t m) {
  static thread_local Kept kept;
  const int64_t K = x.dim(-1), M = std::min(maxRows, x.rows() - m);
  const float *rows = x.data + m * K;
  if (!norm.data) return {M, K, rows};
  float *normed = kept.of(M * K);
  parallel(M, std::max<int64_t>(1, (1 << 15) / K), [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i++) rmsRow(K, rows + i * K, norm.data, eps, normed + i * K);
  });
  return {M, K, normed};
}

enum Number { activation, count, gating, normed, eps, added, forms, biased = forms + 3 }; // forms and biased: one of each map

/** The maps in the order of the inputs `weight, bias?` from `next` on. */
std::vector<Map> mapsOf(Call &call, int64_t K, int next) {
  std::vector<Map> maps;
  for (int i = 0; i < call.whole(count); i++) {
    const Form form = static_cast<Form>(call.whole(forms + i));
    const bool hasBias = call.whole(biased + i) != 0;
    const Tensor weight = call.input(next++, form == Form::float32 ? TF_FLOAT : TF_INT32), bias = hasBias ? call.input(next++) : Tensor{};
    const int64_t stride = rowWords(form, K);
    require(weight.shape.size() == 2 && weight.dim(1) == stride, "x [.., K] and weight [N, K] must agree");
    require(!hasBias || bias.size() == weight.dim(0), "bias must be [N]");
    maps.push_back({form, weight.dim(0), stride, weight.data, bias.data, Activation::none, nullptr});
  }
  return maps;
}

void run(Call &call) {
  int next = 0;
  const Tensor x = call.input(next++);
  require(!x.shape.empty(), "x must have an axis");
  const Tensor norm = call.whole(normed) != 0 ? call.input(next++) : Tensor{}, plus = call.whole(added) != 0 ? call.input(next++) : Tensor{};
  require(!norm.data || norm.size() == x.dim(-1), "a norm must be as long as a row");
  std::vector<Map> maps = mapsOf(call, x.dim(-1), next);
  const bool gates = call.whole(gating) != 0;
  std::vector<int64_t> shape = x.shape;
  for (size_t i = 0; i < (gates ? 1 : maps.size()); i++) shape.back() = maps[i].N, maps[i].y = call.output(shape, i).data;
  maps[0].activation = static_cast<Activation>(call.whole(activation));
  require(!plus.data || plus.size() == x.rows() * maps[0].N, "what is added must have the shape of the result");
  maps[0].plus = plus.data;
  static thread_local Kept kept;
  if (gates) {
    require(maps.size() == 2 && maps[0].N == maps[1].N, "a gate and what it gates must have one shape");
    std::swap(maps[0], maps[1]); // what is gated is there first
    maps[1].times = maps[0].y = kept.of(std::min(x.rows(), maxRows) * maps[0].N);
  }
  for (int64_t m = 0; m < x.rows(); m += maxRows) {
    const Rows some = rowsOf(x, norm, static_cast<float>(call.number(eps)), m);
    multiplyAll(maps, some);
    for (size_t i = gates ? 1 : 0; i < maps.size(); i++) {
      maps[i].y += some.M * maps[i].N;
      if (maps[i].plus) maps[i].plus += some.M * maps[i].N;
    }
  }
}

const Op affine{"InternvlAffine", run};
const Op projections{"InternvlProjections", run, {"a: float", "b: float", "c: float"}};
const Register<affine> registered;
const Register<projections> projectionsRegistered;
} // namespace

// `act(x Wᵀ + b)`: x `[…, K]`, weights `[N, K]` as the checkpoint has them, or packed; biases `[N]` where there are any.
// Three weights are a gated unit, `(act(x W₀ᵀ + b₀) ⊙ (x W₁ᵀ + b₁)) W₂ᵀ + b₂`. A norm of x may come before, something to add after:
// what stands around a product costs no op of its own.
#include "affine.h"
#include "norm.h"
#include "panels.h"
#include "pool.h"
#include "rows.h"

namespace {
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

/** As many as are read against a row of weights faster than these are unpacked and laid into panels. */
constexpr int64_t fewRows(Form form) { return form == Form::float32 ? 8 : 24; }

void streamed(const Map &map, const Rows &x) {
  const int64_t grain = std::max<int64_t>(1, (1 << 14) / std::max<int64_t>(1, map.stride)); // 64 KiB of weights
  const RowProduct product(map.form, x, map.weight);
  parallel(map.N, grain, [&](int64_t from, int64_t to) {
    product.multiply(from, to, map.y, map.N);
    for (int64_t m = 0; m < x.M; m++) finish(map, m, from, to);
  });
}

// --- Many rows: tiles in registers, x packed once, the weight packed by whoever needs a piece of it.

constexpr int64_t stripe = 4 * width; // columns of y that one thread makes at a time
constexpr int64_t group = 12 * 12;    // rows of x whose panels stay in the second cache

/** A tile of R rows that `make(y, stride, first)` adds to what is there, unless it is the first of its K; at an edge of y by way of memory of its own. */
template <int64_t R, class F> void place(float *y, int64_t stride, bool first, int64_t rows, int64_t columns, F make) {
  if (rows == R && columns == width) return make(y, stride, first);
  alignas(64) float whole[R * width];
  make(whole, width, true);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t j = 0; j < columns; j++) y[r * stride + j] = first ? whole[r * width + j] : y[r * stride + j] + whole[r * width + j];
}

/** x in panels: `[K / depth][panels][R · words]`. */
template <class Kind> const float *packedRows(const Rows &x) {
  constexpr int64_t R = Kind::R, size = R * Kind::words;
  static thread_local Kept kept;
  const int64_t panels = upTo(x.M, R);
  float *packed = kept.of(upTo(x.K, depth) * panels * size);
  parallel(panels, std::max<int64_t>(1, 24 / R), [&](int64_t from, int64_t to) {
    for (int64_t k = 0; k < x.K; k += depth)
      for (int64_t i = from; i < to; i++)
        Kind::packRows(packed + (k / depth * panels + i) * size, x.x + i * R * x.K + k, x.K, std::min(R, x.M - i * R), std::min(depth, x.K - k));
  });
  return packed;
}

/** x is packed by the first of the weights that are multiplied in this way. */
template <class Kind> void tiled(const Map &map, const Rows &x, const float *&packed) {
  constexpr int64_t R = Kind::R, size = R * Kind::words, block = group / R;
  if (!packed) packed = packedRows<Kind>(x);
  const int64_t panels = upTo(x.M, R);
  parallel(upTo(map.N, stripe), 1, [&](int64_t from, int64_t to) {
    static thread_local Kept kept;
    float *own = kept.of(stripe * Kind::words);
    [[maybe_unused]] const typename Kind::Ready ready;
    for (int64_t n = from * stripe; n < std::min(to * stripe, map.N); n += stripe) {
      const int64_t end = std::min(n + stripe, map.N);
      for (int64_t k = 0; k < x.K; k += depth) {
        const int64_t d = std::min(depth, x.K - k);
        for (int64_t j = n; j < end; j += width) Kind::packWeight(own + (j - n) * Kind::words, map, j, std::min(width, end - j), k, d);
        for (int64_t top = 0; top < panels; top += block) {
          const int64_t bottom = std::min(top + block, panels);
          for (int64_t j = n; j < end; j += width)
            for (int64_t i = top; i < bottom; i++)
              place<R>(map.y + i * R * map.N + j, map.N, k == 0, std::min(R, x.M - i * R), std::min(width, end - j), [&](float *y, int64_t stride, bool first) {
                Kind::tile(d, packed + (k / depth * panels + i) * size, own + (j - n) * Kind::words, y, stride, first);
              });
          if (k + d == x.K)
            for (int64_t m = top * R; m < std::min(bottom * R, x.M); m++) finish(map, m, n, end);
        }
      }
    }
  });
}

// --- Many rows, few weights: these are packed once and stay in the second cache, while rows of x pass by as they lie.

constexpr int64_t R = Singles::R;

bool isSmall(const Map &map, const Rows &x) { return map.N * x.K <= 1 << 17; }

/** Weights in panels: `[K / depth][N / width][depth][width]`. */
const float *packedWeights(const Map &map, int64_t K) {
  static thread_local Kept kept;
  const int64_t stripes = upTo(map.N, width);
  float *packed = kept.of(stripes * width * K);
  for (int64_t k = 0; k < K; k += depth)
    for (int64_t j = 0; j < stripes; j++) {
      const int64_t d = std::min(depth, K - k), n = j * width;
      Singles::packWeight(packed + k * stripes * width + j * d * width, map, n, std::min(width, map.N - n), k, d);
    }
  return packed;
}

/** Rows `[m, end)` of y. */
void rowsOfProduct(const Map &map, const Rows &x, const float *weights, int64_t m, int64_t end) {
  const int64_t stripes = upTo(map.N, width);
  for (int64_t k = 0; k < x.K; k += depth) {
    const int64_t d = std::min(depth, x.K - k);
    for (int64_t j = 0; j < stripes; j++)
      for (int64_t i = m; i < end; i += R) {
        const float *rows[tileRows]; // beyond the last, the last once more
        for (int64_t r = 0; r < R; r++) rows[r] = x.x + std::min(i + r, end - 1) * x.K + k;
        place<R>(map.y + i * map.N + j * width, map.N, k == 0, std::min(R, end - i), std::min(width, map.N - j * width),
              [&](float *y, int64_t stride, bool first) {
                Vec c[tileRows][tileVecs] = {};
                multiplyRows<tileRows, tileVecs>(d, rows, 1, weights + k * stripes * width + j * d * width, width, c);
                put(c, y, stride, first);
              });
      }
  }
  for (int64_t i = m; i < end; i++) finish(map, i, 0, map.N);
}

void rowwise(const Map &map, const Rows &x) {
  const float *weights = packedWeights(map, x.K);
  const int64_t most = 10 * R, pieces = std::max<int64_t>(1, std::min(upTo(x.M, R), 8 * int64_t{threads()}));
  const int64_t grain = std::min(most, upTo(upTo(x.M, pieces), R) * R);
  parallel(x.M, grain, [&](int64_t from, int64_t to) {
    for (int64_t m = from; m < to; m += grain) rowsOfProduct(map, x, weights, m, std::min(m + grain, to));
  });
}

/** All products of some rows of x. Weights in fewer bits than float32, if they are many, meet x in bfloat16 where the processor can. */
void multiplyAll(const std::vector<Map> &maps, const Rows &x) {
  const float *singles = nullptr, *halves = nullptr;
  for (const Map &map : maps) {
    if (x.M <= fewRows(map.form)) streamed(map, x);
    else if (isSmall(map, x)) rowwise(map, x);
    else if (map.form == Form::float32 || !hasHalves) tiled<Singles>(map, x, singles);
#if defined(WITH_AMX)
    else if (AmxHalves::granted()) tiled<AmxHalves>(map, x, halves);
#endif
    else tiled<Halves>(map, x, halves);
  }
}

/** Norms of M rows. */
const float *normed(int64_t M, int64_t K, const float *x, const Norm &norm) {
  static thread_local Kept kept;
  float *y = kept.of(M * K);
  parallel(M, std::max<int64_t>(1, (1 << 15) / std::max<int64_t>(1, K)), [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i++) rmsRow(K, x + i * K, norm.weight, norm.eps, y + i * K);
  });
  return y;
}
} // namespace

Map mapOf(Call &call, Form form, bool biased, int64_t K, int &next) {
  const Tensor weight = call.input(next++, form == Form::float32 ? TF_FLOAT : TF_INT32), bias = biased ? call.input(next++) : Tensor{};
  const int64_t stride = rowWords(form, K);
  require(weight.shape.size() == 2 && weight.dim(1) == stride, "x [.., K] and weight [N, K] must agree");
  require(!biased || bias.size() == weight.dim(0), "bias must be [N]");
  return {form, weight.dim(0), stride, weight.data, bias.data, Activation::none, nullptr};
}

void product(std::vector<Map> maps, int64_t M, int64_t K, const float *x, const Norm &norm) {
  for (int64_t m = 0; m < M; m += maxRows, x += maxRows * K) {
    const int64_t rows = std::min(maxRows, M - m);
    multiplyAll(maps, {rows, K, norm.weight ? normed(rows, K, x, norm) : x});
    for (Map &map : maps) {
      map.y += rows * map.N;
      if (map.times) map.times += rows * map.N;
      if (map.plus) map.plus += rows * map.N;
    }
  }
}

void gatedUnit(int64_t M, int64_t K, const float *x, const Norm &norm, Map gate, Map up, Map down) {
  require(gate.N == up.N, "a gate and what it gates must have one shape");
  static thread_local Kept ungated, inner;
  for (int64_t m = 0; m < M; m += maxRows) {
    const int64_t rows = std::min(maxRows, M - m);
    gate.times = up.y = ungated.of(rows * up.N), gate.y = inner.of(rows * up.N);
    product({up, gate}, rows, K, x + m * K, norm);
    product({down}, rows, up.N, gate.y);
    down.y += rows * down.N;
    if (down.plus) down.plus += rows * down.N;
  }
}

namespace {
enum Number { activation, gating, normal, eps, added, forms, biased = forms + 3 }; // forms and biased: one of each map

void run(Call &call) {
  int next = 0;
  const Tensor x = call.input(next++);
  require(!x.shape.empty(), "x must have an axis");
  const Tensor weight = call.whole(normal) ? call.input(next++) : Tensor{}, plus = call.whole(added) ? call.input(next++) : Tensor{};
  require(!weight.data || weight.size() == x.dim(-1), "a norm must be as long as a row");
  const Norm norm{weight.data, static_cast<float>(call.number(eps))};
  const auto map = [&](int i, int64_t K) { return mapOf(call, static_cast<Form>(call.whole(forms + i)), call.whole(biased + i) != 0, K, next); };
  std::vector<Map> maps{map(0, x.dim(-1))};
  maps[0].activation = static_cast<Activation>(call.whole(activation));
  if (call.whole(gating)) maps.push_back(map(1, x.dim(-1))), maps.push_back(map(2, maps[0].N));
  std::vector<int64_t> shape = x.shape;
  shape.back() = maps.back().N;
  const Tensor y = call.output(shape);
  require(!plus.data || plus.size() == y.size(), "what is added must have the shape of the result");
  maps.back().y = y.data, maps.back().plus = plus.data;
  if (call.whole(gating)) gatedUnit(x.rows(), x.dim(-1), x.data, norm, maps[0], maps[1], maps[2]);
  else product(maps, x.rows(), x.dim(-1), x.data, norm);
}

const Op affine{"InternvlAffine", run};
const Register<affine> registered;
} // namespace

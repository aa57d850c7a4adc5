// Attention of few queries (decoding): keys and values are read a run of keys at a time, once for all query heads that share them. The keys
// are split into parts for the threads, whose partial softmaxes are merged. Source: Dao et al. 2023 (Flash-Decoding).
#include <type_traits>
#include "attention/attention.h"
#include "gemm/microkernel.h"
#include "runtime/scratch-buffer.h"
#include "runtime/thread-pool.h"

namespace {
constexpr int64_t keysPerRun = 64;          // the keys and values of a run stay in the L1 and L2 caches
constexpr float hidden = 2 * minusInfinity; // score of no key: its weight is zero even where the mask hides all keys

// A tile: query rows x vectors of keys or of columns of the values.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int queryRows = 8, queryVecs = 2;
#else
constexpr int queryRows = 4, queryVecs = 2;
#endif

/** One key/value head: R query rows `[R][K]`, scaled and zero-padded to whole vectors; scratch memory for a run of keys. */
struct Group {
  int64_t b, g, rows, K;
  float *q, *weights, *columns, *padded; // [R][K], [R][keysPerRun], [K][keysPerRun], [keysPerRun][K]
  static int64_t size(int64_t rows, int64_t K) { return rows * (K + keysPerRun) + 2 * keysPerRun * K; }
};

/** The softmax of a group over part of the keys, for each row: the maximum score, the sum of weights, and the weighted sum of values. */
struct PartialSoftmax {
  float *maximum, *total, *out; // [R], [R], [R][K]
  static int64_t size(int64_t rows, int64_t K) { return rows * (K + 2); }
  PartialSoftmax(float *memory, int64_t rows) : maximum(memory), total(memory + rows), out(memory + 2 * rows) {}
};

/**
 * Prefetches the keys and then the values of a run into the L2 cache, `lines` cache lines a call. The calls are spread over the work on the run before, or
 * on the last run itself: a core can await some sixteen lines at a time, and stands still when it asks for more.
 */
template <int lines> struct Prefetcher {
  const float *at, *end, *values;
  int64_t rows = 1, width, skipped = 0; // transposed keys: a row for each word, `skipped` floats before the next
  Prefetcher(const Attention &p, const Group &group, int64_t from) : values(p.v.row(group.b, group.g, from)), width(keysPerRun * p.k.columns()) {
    if (p.k.transposed) rows = p.k.columns(), width = keysPerRun, skipped = p.k.capacity - keysPerRun;
    at = p.k.transposed ? p.k.word(group.b, group.g, 0, from) : p.k.row(group.b, group.g, from);
    end = at + width;
  }
  void operator()() {
    if (at == end) {
      if (--rows > 0) at += skipped, end = at + width;
      else at = values;
    }
    for (int i = 0; i < lines; i++, at += 16) __builtin_prefetch(at, 0, 2);
  }
};

/** Rows `[from, from + count)` as floats in `group.padded`, `[count][group.K]`. */
const float *padded(const Heads &x, const Group &group, int64_t from, int64_t count) {
  for (int64_t j = 0; j < count; j++) {
    float *row = group.padded + j * group.K;
    dequantizeRow(x.format, x.row(group.b, group.g, from + j), 0, x.K, row);
    std::fill_n(row + x.K, group.K - x.K, 0.0f);
  }
  return group.padded;
}

/** Of pairs of bfloat16 numbers in words, the first of each, from the low half of its word, and the second, in float32. */
inline Vec firstOfPairs(IVec pairs) { return reinterpret_cast<Vec>(pairs << 16); }
inline Vec secondOfPairs(IVec pairs) { return reinterpret_cast<Vec>(pairs & -65536); }

/**
 * Transposes `count` keys of K numbers into `columns`, `[K][keysPerRun]`: with keys in the lanes of a vector, dot products need no sums across lanes. Reads
 * rows up to a whole vector of keys.
 */
template <class P> inline void transposeKeys(const float *keys, int64_t stride, int64_t count, int64_t K, float *columns, P &prefetch) {
  for (int64_t j = 0; j < count; j += W) {
    const float *row = keys + j * stride;
    float *column = columns + j;
    for (int64_t d = 0; d < K; d += 4, column += 4 * keysPerRun) {
      Vec x[4];
      for (int i = 0; i < 4; i++) x[i] = loadFours(row + i * stride + d, 4 * stride);
      transpose(x);
      for (int i = 0; i < 4; i++) store(column + i * keysPerRun, x[i]);
      prefetch();
    }
  }
}

/** Transposes keys `[from, from + count)` of a group into `group.columns`. */
template <class P> void transposeRun(const Heads &keys, const Group &group, int64_t from, int64_t count, P &prefetch) {
  const bool isDirect = keys.K == group.K && count % W == 0 && keys.format == Format::float32;
  if (isDirect) transposeKeys(keys.row(group.b, group.g, from), keys.stride(), count, group.K, group.columns, prefetch);
  else transposeKeys(padded(keys, group, from, count), group.K, count, group.K, group.columns, prefetch);
}

/** Calls `tile` with a number of rows, the first row and that number: as many times `most` rows as there are, then the rest. */
template <int most, class F> inline void forTilesOfRows(int64_t rows, F tile) {
  int64_t r = 0;
  for (; r + most <= rows; r += most) tile(std::integral_constant<int, most>(), r);
  if constexpr (most > 1)
    if (r < rows) forTilesOfRows<most - 1>(rows - r, [&](auto count, int64_t i) { tile(count, r + i); });
}

/** Scores of all rows with V vectors of keys from key j of a run on. */
template <int V, class P> inline void scoreKeys(const Group &group, int64_t j, P &prefetch) {
  forTilesOfRows<queryRows>(group.rows, [&](auto count, int64_t r) {
    constexpr int Q = count.value;
    const float *rows[Q];
    for (int i = 0; i < Q; i++) rows[i] = group.q + (r + i) * group.K;
    Vec c[Q][V] = {};
    multiplyRows(group.K, rows, 1, [&](int64_t d, int v) {
      if (v == 0 && d % 2 == 0) prefetch();
      return load(group.columns + d * keysPerRun + j + v * W);
    }, c);
    storeTile(group.weights + r * keysPerRun + j, keysPerRun, c);
  });
}

/** Words of keys from one on, `stride` floats from one word to the next. */
struct Words {
  const float *data;
  int64_t stride;
};

/** Words of transposed keys `[from, from + count)`: the memory of the keys, or a copy where whole vectors would pass the end of the last word. */
Words wordsOf(const Heads &keys, const Group &group, int64_t from, int64_t count) {
  if (from + roundUp(count, W) <= keys.capacity) return {keys.word(group.b, group.g, 0, from), keys.capacity};
  for (int64_t w = 0; w < keys.columns(); w++) std::copy_n(keys.word(group.b, group.g, w, from), count, group.columns + w * keysPerRun);
  return {group.columns, keysPerRun};
}

/** `scoreKeys` of keys in bfloat16, `count` words each. */
template <int V, class P> inline void scorePairs(const Group &group, Words words, int64_t count, int64_t j, P &prefetch) {
  forTilesOfRows<queryRows>(group.rows, [&](auto rows, int64_t r) {
    constexpr int Q = rows.value;
    Vec c[Q][V] = {};
    const float *at = words.data + j, *q = group.q + r * group.K;
    for (int64_t w = 0; w < count; w++, at += words.stride, q += 2) {
      prefetch();
      if (w % 2) prefetch(); // with those of softmax and values, once for each cache line of a run
      IVec pairs[V];
      for (int v = 0; v < V; v++) pairs[v] = reinterpret_cast<IVec>(load(at + v * W));
      const float *first[Q], *second[Q];
      for (int i = 0; i < Q; i++) first[i] = q + i * group.K, second[i] = first[i] + 1;
      multiplyRows(1, first, 1, [&](int64_t, int v) { return firstOfPairs(pairs[v]); }, c);
      multiplyRows(1, second, 1, [&](int64_t, int v) { return secondOfPairs(pairs[v]); }, c);
    }
    storeTile(group.weights + r * keysPerRun + j, keysPerRun, c);
  });
}

/** Calls `score` with a number of vectors and the first key of each, for the keys of a run. */
template <class F> inline void forVectorsOfKeys(int64_t count, F score) {
  int64_t j = 0;
  for (; j + queryVecs * W <= roundUp(count, W); j += queryVecs * W) score(std::integral_constant<int, queryVecs>(), j);
  for (; j < count; j += W) score(std::integral_constant<int, 1>(), j);
}

/** Softmax in place of one row: turns the scores of keys `[low, high)` of a run into weights, those of the other keys into zeros. */
void softmaxInPlace(const Group &group, int64_t r, int64_t low, int64_t high, const float *mask, PartialSoftmax &partial) {
  float *weights = group.weights + r * keysPerRun;
  if (low >= high) return void(std::fill_n(weights, keysPerRun, 0.0f));
  if (low > 0) std::fill_n(weights, low, hidden);
  if (mask) map(high - low, weights + low, [&](auto at) { return at(static_cast<const float *>(weights + low)) + at(mask + low); });
  if (high < keysPerRun) std::fill_n(weights + high, keysPerRun - high, hidden);
  Vec x[keysPerRun / W], maxima = splat(minusInfinity), total{};
  for (int64_t j = 0; j < keysPerRun; j += W) x[j / W] = load(weights + j), maxima = max(maxima, x[j / W]);
  const float largest = maximumOf(maxima);
  if (largest > partial.maximum[r]) {
    const float rescale = exp(splat(partial.maximum[r] - largest))[0];
    partial.total[r] *= rescale, partial.maximum[r] = largest;
    float *out = partial.out + r * group.K;
    for (int64_t d = 0; d < group.K; d += W) store(out + d, load(out + d) * rescale);
  }
  const float maximum = partial.maximum[r];
  for (int64_t j = 0; j < keysPerRun; j += W) {
    const Vec weight = exp(x[j / W] - maximum);
    store(weights + j, weight);
    total += weight;
  }
  partial.total[r] += sum(total);
}

/** Adds the products of the weights with V vectors of columns of `count` values to `out`, rows of K; `read(j, v)` is vector v of value j. */
template <int V, class F, class P> inline void addColumns(const Group &group, int64_t count, F read, float *out, P &prefetch) {
  forTilesOfRows<queryRows>(group.rows, [&](auto rows, int64_t r) {
    constexpr int Q = rows.value;
    const float *weights[Q];
    for (int i = 0; i < Q; i++) weights[i] = group.weights + (r + i) * keysPerRun;
    Vec c[Q][V];
    loadTile(out + r * group.K, group.K, c);
    multiplyRows(count, weights, 1, [&](int64_t j, int v) {
      if (v == 0) prefetch();
      return read(j, v);
    }, c);
    storeTile(out + r * group.K, group.K, c);
  });
}

/** Adds the products of the weights with `count` values in float32 to `out`, `[R][K]`. */
template <class P> inline void addValues(const Group &group, const float *values, int64_t stride, int64_t count, float *out, P &prefetch) {
  const auto columnsAt = [&](int64_t d) { return [=](int64_t j, int v) { return load(values + j * stride + d + v * W); }; };
  int64_t d = 0;
  for (; d + queryVecs * W <= group.K; d += queryVecs * W) addColumns<queryVecs>(group, count, columnsAt(d), out + d, prefetch);
  for (; d < group.K; d += W) addColumns<1>(group, count, columnsAt(d), out + d, prefetch);
}

/** `addValues` of values in bfloat16. Of each 2W columns, `out` has the even ones before the odd ones. */
template <class P> inline void addPackedValues(const Group &group, const float *values, int64_t stride, int64_t count, float *out, P &prefetch) {
  int64_t d = 0;
  for (; d + 2 * W <= group.K; d += 2 * W)
    addColumns<2>(group, count, [&](int64_t j, int v) {
      const IVec pairs = reinterpret_cast<IVec>(load(values + j * stride + d / 2));
      return v == 0 ? firstOfPairs(pairs) : secondOfPairs(pairs);
    }, out + d, prefetch);
  for (; d < group.K; d += W)
    addColumns<1>(group, count, [&](int64_t j, int) { return loadBfloat16(reinterpret_cast<const uint16_t *>(values + j * stride + d / 2)); }, out + d, prefetch);
}

/** Reorders the columns of a row that `addPackedValues` has written. */
void interleaveColumns(int64_t K, float *row) {
  for (; K >= 2 * W; K -= 2 * W, row += 2 * W) {
    const Vec even = load(row), odd = load(row + W);
    for (int i = 0; i < W; i++) row[2 * i] = even[i], row[2 * i + 1] = odd[i];
  }
}

/** Adds keys `[from, to)`, at most one run, to the partial softmax of a group. `packed`: keys are transposed, keys and values in bfloat16. */
template <bool packed> void attendRun(const Attention &p, const Group &group, int64_t from, int64_t to, PartialSoftmax &partial) {
  const int64_t count = to - from;
  Prefetcher<packed ? 1 : 2> prefetch(p, group, to < p.k.L ? to : from);
  if (packed) {
    const Words words = wordsOf(p.k, group, from, count);
    forVectorsOfKeys(count, [&](auto vecs, int64_t j) { scorePairs<vecs.value>(group, words, p.k.columns(), j, prefetch); });
  } else {
    transposeRun(p.k, group, from, count, prefetch);
    forVectorsOfKeys(count, [&](auto vecs, int64_t j) { scoreKeys<vecs.value>(group, j, prefetch); });
  }
  const float *mask = p.maskOf(group.b);
  for (int64_t r = 0; r < group.rows; r++) {
    const int64_t position = p.start() + r % p.q.L, low = std::max(p.firstKey(group.b, position), from), high = std::min(p.endKey(position), to);
    softmaxInPlace(group, r, low - from, high - from, mask ? mask + from : nullptr, partial);
    for (int i = 0; i < 5; i++) prefetch();
  }
  const float *values = p.v.row(group.b, group.g, from);
  const bool isDirect = p.v.K == group.K && (packed || p.v.format == Format::float32);
  if (!isDirect) addValues(group, padded(p.v, group, from, count), group.K, count, partial.out, prefetch);
  else if (packed) addPackedValues(group, values, p.v.stride(), count, partial.out, prefetch);
  else addValues(group, values, p.v.stride(), count, partial.out, prefetch);
}

/** Merges the partial softmaxes of row r, and the attention sink of head h, into the output row. */
void mergePartials(const Attention &p, int64_t h, int64_t r, int64_t rows, float *partials, int64_t parts, int64_t partSize, int64_t paddedK, float *out) {
  const int64_t K = p.q.K;
  float maximum = p.sinks ? p.sinks[h] : minusInfinity;
  for (int64_t i = 0; i < parts; i++) maximum = std::max(maximum, PartialSoftmax(partials + i * partSize, rows).maximum[r]);
  float total = p.sinks ? exp(splat(p.sinks[h] - maximum))[0] : 0;
  std::fill_n(out, K, 0.0f);
  for (int64_t i = 0; i < parts; i++) {
    const PartialSoftmax part(partials + i * partSize, rows);
    const float share = exp(splat(part.maximum[r] - maximum))[0];
    total += share * part.total[r];
    map(K, out, [&](auto at) { return at(static_cast<const float *>(out)) + share * at(static_cast<const float *>(part.out + r * paddedK)); });
  }
  map(K, out, [&](auto at) { return at(static_cast<const float *>(out)) / total; });
}

/** The query rows of a group, scaled and padded. */
void gatherQueries(const Attention &p, const Group &group) {
  std::fill_n(group.q, group.rows * group.K, 0.0f);
  for (int64_t r = 0; r < group.rows; r++) {
    const float *from = p.q.row(group.b, group.g * (p.q.H / p.k.H) + r / p.q.L, r % p.q.L);
    for (int64_t i = 0; i < p.q.K; i++) group.q[r * group.K + i] = from[i] * p.scale;
  }
}

/** Number of parts of the keys of a head: with two for each thread, a thread that another program slows down does less. */
int64_t numParts(int64_t heads, int64_t runs) {
  return std::max<int64_t>(1, std::min(runs / 2, ceilDiv(2 * int64_t{threads()}, heads)));
}
} // namespace

void decodeAttention(const Attention &p) {
  const int64_t heads = p.k.B * p.k.H, rows = p.q.H / p.k.H * p.q.L, K = roundUp(p.q.K, W), firstKey = p.sampleStarts ? 0 : p.firstKey(0, p.start());
  const int64_t runs = ceilDiv(p.k.L - firstKey, keysPerRun), parts = numParts(heads, runs), partKeys = ceilDiv(runs, parts) * keysPerRun;
  const int64_t partSize = PartialSoftmax::size(rows, K);
  const bool packed = p.k.transposed;
  const auto attend = packed ? attendRun<true> : attendRun<false>;
  static thread_local ScratchBuffer partialScratch;
  float *partials = partialScratch.reserve(heads * parts * partSize);
  parallel(heads * parts, heads * rows * p.k.L * p.k.K < (1 << 16) ? heads * parts : 1, [&](int64_t first, int64_t end) {
    static thread_local ScratchBuffer scratch;
    float *q = scratch.reserve(Group::size(rows, K)), *weights = q + rows * K, *columns = weights + rows * keysPerRun, *padded = columns + keysPerRun * K;
    for (int64_t i = first; i < end; i++) {
      const Group group{i / parts / p.k.H, i / parts % p.k.H, rows, K, q, weights, columns, padded};
      gatherQueries(p, group);
      PartialSoftmax partial(partials + i * partSize, rows);
      std::fill_n(partial.maximum, rows, minusInfinity);
      std::fill_n(partial.total, rows * (K + 1), 0.0f);
      const int64_t begin = firstKey + i % parts * partKeys, last = std::min(p.k.L, begin + partKeys);
      for (int64_t from = begin; from < last; from += keysPerRun) attend(p, group, from, std::min(from + keysPerRun, last), partial);
    }
  });
  for (int64_t i = 0; i < heads * rows; i++) {
    const int64_t head = i / rows, r = i % rows, h = head % p.k.H * (p.q.H / p.k.H) + r / p.q.L;
    float *out = p.out.row(head / p.k.H, h, r % p.q.L);
    mergePartials(p, h, r, rows, partials + head * parts * partSize, parts, partSize, K, out);
    if (packed && p.v.K == K) interleaveColumns(K, out);
  }
}

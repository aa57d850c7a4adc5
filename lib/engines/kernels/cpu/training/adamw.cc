// Operators on lists of tensors: one step of AdamW, the global norm of gradients, sums of gradients.
#include <algorithm>
#include <cmath>
#include "operator/operator.h"
#include "runtime/simd.h"
#include "runtime/thread-pool.h"

namespace {
constexpr int64_t grain = 1 << 14; // entries

/** Entries `[from, to)` of one of several tensors. */
struct Piece {
  int tensor;
  int64_t from, to;
};

/** The tensors in pieces of at most `grain` entries: many small tensors are shared by the threads as one large tensor is. */
std::vector<Piece> piecesOf(const std::vector<Tensor> &tensors) {
  std::vector<Piece> pieces;
  for (int i = 0; i < static_cast<int>(tensors.size()); i++)
    for (int64_t from = 0; from < tensors[i].size(); from += grain) pieces.push_back({i, from, std::min(tensors[i].size(), from + grain)});
  return pieces;
}

/** Calls `compute` on all pieces, in parallel; a thread takes as many pieces as have `grain` entries. */
template <class Compute> void inPieces(const std::vector<Tensor> &tensors, Compute compute) {
  const std::vector<Piece> pieces = piecesOf(tensors);
  int64_t entries = 0;
  for (const Piece &piece : pieces) entries += piece.to - piece.from;
  const int64_t each = std::max<int64_t>(1, static_cast<int64_t>(pieces.size()) * grain / std::max<int64_t>(1, entries));
  parallel(pieces.size(), each, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i++) compute(pieces[i], i);
  });
}

/** The next tensor of a list, of any shape. */
Tensor nextOf(Reader &reader, const char *name) {
  Axes axes;
  return reader.input(name, TF_FLOAT, ".", axes);
}

/** The next tensor of a list, of the shape of `like`. */
Tensor nextLike(Reader &reader, const char *name, const Tensor &like) {
  const Tensor x = nextOf(reader, name);
  require(x.shape == like.shape, "the tensors of a group must have equal shapes");
  return x;
}

/** New parameters, first moments and second moments. */
void adamW(const kernels::AdamW &in, Reader &reader, OperatorContext &context) {
  std::vector<Tensor> leaves, gradients, firsts, seconds;
  while (reader.remaining() > 0) {
    leaves.push_back(nextOf(reader, "leaf"));
    gradients.push_back(nextLike(reader, "gradient", leaves.back()));
    firsts.push_back(nextLike(reader, "first", leaves.back()));
    seconds.push_back(nextLike(reader, "second", leaves.back()));
  }
  const int n = static_cast<int>(leaves.size());
  require(in.axes['N'] == n && in.axes['R'] == 2, "rates must have one row of two numbers for each parameter");
  std::vector<Tensor> newLeaves, newFirsts, newSeconds;
  for (int i = 0; i < n; i++) newLeaves.push_back(context.output(leaves[i].shape, i));
  for (int i = 0; i < n; i++) newFirsts.push_back(context.output(leaves[i].shape, n + i));
  for (int i = 0; i < n; i++) newSeconds.push_back(context.output(leaves[i].shape, 2 * n + i));
  const float gradScale = in.gradScale, beta1 = in.beta1, oneMinusBeta1 = in.oneMinusBeta1, beta2 = in.beta2, oneMinusBeta2 = in.oneMinusBeta2;
  const float secondCorrection = in.secondCorrection, eps = in.eps;
  inPieces(leaves, [&](const Piece &piece, int64_t) {
    const int i = piece.tensor;
    const float decay = in.rates.data[2 * i], stepSize = in.rates.data[2 * i + 1];
    const float *x = leaves[i].data + piece.from, *g = gradients[i].data + piece.from;
    const float *m = firsts[i].data + piece.from, *v = seconds[i].data + piece.from;
    float *newX = newLeaves[i].data + piece.from, *newM = newFirsts[i].data + piece.from, *newV = newSeconds[i].data + piece.from;
    const int64_t size = piece.to - piece.from;
    map(size, newM, [&](auto at) { return at(m) * beta1 + at(g) * gradScale * oneMinusBeta1; });
    map(size, newV, [&](auto at) {
      const Vec gradient = at(g) * gradScale;
      return at(v) * beta2 + gradient * gradient * oneMinusBeta2;
    });
    map(size, newX, [&](auto at) {
      return at(x) * decay - at(static_cast<const float *>(newM)) * stepSize / (sqrt(at(static_cast<const float *>(newV))) / secondCorrection + eps);
    });
  });
}

/** The sums of pairs of tensors. */
void addPairs(const kernels::AddPairs &, Reader &reader, OperatorContext &context) {
  std::vector<Tensor> as, bs, sums;
  while (reader.remaining() > 0) {
    as.push_back(nextOf(reader, "a"));
    bs.push_back(nextLike(reader, "b", as.back()));
  }
  for (const Tensor &a : as) sums.push_back(context.output(a.shape, static_cast<int>(sums.size())));
  inPieces(as, [&](const Piece &piece, int64_t) {
    const float *a = as[piece.tensor].data + piece.from, *b = bs[piece.tensor].data + piece.from;
    map(piece.to - piece.from, sums[piece.tensor].data + piece.from, [&](auto at) { return at(a) + at(b); });
  });
}

/** `√Σ x²` over all inputs. */
void globalNorm(const kernels::GlobalNorm &, Reader &reader, OperatorContext &context) {
  std::vector<Tensor> tensors;
  while (reader.remaining() > 0) tensors.push_back(nextOf(reader, "gradient"));
  std::vector<double> sums(piecesOf(tensors).size());
  inPieces(tensors, [&](const Piece &piece, int64_t index) {
    const float *x = tensors[piece.tensor].data;
    Vec c{};
    for (int64_t j = piece.from; j < piece.to; j += W) {
      const Vec entries = j + W <= piece.to ? load(x + j) : loadSome(x + j, piece.to - j);
      c += entries * entries;
    }
    sums[index] = sum(c);
  });
  double total = 0;
  for (double each : sums) total += each;
  *context.output({}).data = static_cast<float>(std::sqrt(total));
}

const Register<kernels::AddPairs, addPairs> addPairsRegistered;
const Register<kernels::AdamW, adamW> adamWRegistered;
const Register<kernels::GlobalNorm, globalNorm> globalNormRegistered;
} // namespace

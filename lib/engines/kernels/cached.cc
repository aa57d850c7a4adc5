// Causal attention of new positions after a cache `[B, G, room, K]`: q and k are turned by their positions, k and v are written behind
// those that are there, all is attended. Alone; or with the norm and the projections before it, the projection after it and the sum with
// what it began from; or in all layers of a decoder, each with its gated unit. Output: `[B, L, H·K]`, or the last sum.
#include "affine.h"
#include "attention.h"
#include "norm.h"
#include "pool.h"
#include "rope.h"

namespace {
/** What an op is told first: positions in the cache, and whether some are padding. What follows is counted anew. */
enum Step { past, padded, stepNumbers };

/** What new positions see beside the weights. */
struct Seen {
  int64_t past;
  Tensor cos, sin, padding; // without data: none
};

/** The inputs cos, sin and, where it is told of, padding. */
Seen readSeen(Call &call, int &next) {
  Seen seen{call.whole(past), call.input(next++), {}, {}};
  seen.sin = call.input(next++);
  if (call.whole(padded)) seen.padding = call.input(next++);
  return seen;
}

/** What is fixed of an attention, told in this order. */
enum Fixed { scale, heads, keyHeads, window, headNormed, headEps, sunk, fixedNumbers };

struct Attends {
  int64_t H, G, window;
  float scale, eps;
  Tensor qNorm, kNorm, sinks; // without data: none
};

Attends readAttends(Call &call, int &next) {
  const auto some = [&](Fixed flag) { return call.whole(flag) != 0 ? call.input(next++) : Tensor{}; };
  Attends attends{call.whole(heads), call.whole(keyHeads), call.whole(window), static_cast<float>(call.number(scale)), static_cast<float>(call.number(headEps)), {}, {}, {}};
  attends.qNorm = some(headNormed), attends.kNorm = some(headNormed), attends.sinks = some(sunk);
  require(attends.G > 0 && attends.H % attends.G == 0, "key heads must divide heads");
  return attends;
}

/** New queries `[B, L, H·K]`, and keys and values `[B, L, G·K]` before their rotation. */
struct New {
  int64_t B, L, K;
  const float *q, *k, *v;
};

/** A head before the product with its like: normed, if that is asked for, and turned. */
void ready(int64_t K, int64_t R, const Tensor &norm, float eps, const float *x, const float *cos, const float *sin, float *y) {
  static thread_local Kept kept;
  if (norm.data) {
    float *normed = kept.of(K);
    rmsRow(K, x, norm.data, eps, normed);
    x = normed;
  }
  rotate(K, R, x, cos, sin, y);
}

/** Attends into `[B, L, H·K]`; the new keys and values go behind those in the cache. */
void attendNew(const Attends &attends, const Seen &seen, const New &given, const Tensor &key, const Tensor &value, float *out) {
  const auto &[B, L, K, q, k, v] = given;
  const auto &[H, G, window, scale, eps, qNorm, kNorm, sinks] = attends;
  const int64_t all = seen.past + L, R = seen.cos.dim(-1), tables = seen.cos.dim(0);
  require(seen.cos.shape == seen.sin.shape && seen.cos.size() == tables * L * R && (tables == 1 || tables == B) && R <= K && R % 2 == 0,
          "cos and sin must be [B, 1, L, R], R even and at most K");
  require(key.shape == value.shape && key.shape.size() == 4 && key.dim(0) == B && key.dim(1) == G && key.dim(3) == K, "a cache must be [B, G, room, K]");
  require(key.dim(2) >= all, "no room for the new positions");
  require(!seen.padding.data || seen.padding.size() == all || seen.padding.size() == B * all, "padding must be [B, 1, 1, Lk]");
  require(!sinks.data || sinks.size() == H, "sinks must be [H]");
  require(!qNorm.data || (qNorm.size() == K && kNorm.size() == K), "norms of heads must be [K]");
  const Heads keys{key.data, B, G, all, K, false, key.dim(2)}, values{value.data, B, G, all, K, false, key.dim(2)};
  static thread_local Kept kept;
  float *turned = kept.of(B * L * H * K);
  parallel(B * L, std::max<int64_t>(1, (1 << 14) / ((H + G) * K)), [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i++) {
      const int64_t b = i / given.L, l = i % given.L, angle = ((tables == 1 ? 0 : b) * given.L + l) * R;
      const float *cos = seen.cos.data + angle, *sin = seen.sin.data + angle;
      for (int64_t h = i * attends.H; h < (i + 1) * attends.H; h++)
        ready(given.K, R, attends.qNorm, attends.eps, given.q + h * given.K, cos, sin, turned + h * given.K);
      for (int64_t g = 0; g < attends.G; g++) {
        const int64_t at = (i * attends.G + g) * given.K;
        ready(given.K, R, attends.kNorm, attends.eps, given.k + at, cos, sin, keys.row(b, g, seen.past + l));
        std::copy_n(given.v + at, given.K, values.row(b, g, seen.past + l));
      }
    }
  });
  const Heads queries{turned, B, H, L, K, true, L};
  attend({queries, keys, values, {out, B, H, L, K, true, L}, seen.padding.data, sinks.data, seen.padding.size() == all, scale, true, window});
}

void run(Call &call) {
  int next = 3;
  const Tensor q = call.input(0), k = call.input(1), v = call.input(2);
  const Seen seen = readSeen(call, next);
  const Tensor key = call.input(next++), value = call.input(next++);
  call.countFrom(stepNumbers);
  const Attends attends = readAttends(call, next);
  require(q.shape.size() == 3 && k.shape.size() == 3 && q.dim(2) % attends.H == 0, "expected q [B, L, H*K], k and v [B, L, G*K]");
  const New given{q.dim(0), q.dim(1), q.dim(2) / attends.H, q.data, k.data, v.data};
  require(k.shape == v.shape && k.dim(0) == given.B && k.dim(1) == given.L && k.dim(2) == attends.G * given.K, "q, k and v do not agree");
  attendNew(attends, seen, given, key, value, call.output(q.shape).data);
}

/** Numbers of a branch after those of its attention: forms and biased of q, k, v, o. */
enum { branchEps = fixedNumbers, branchForms, branchBiased = branchForms + 4, branchNumbers = branchBiased + 4 };

/** `y = x + o(attention(q, k and v of norm(x)))`; its weights stand from `next` on. */
void branch(Call &call, const Tensor &x, const Seen &seen, const Tensor &key, const Tensor &value, float *y, int &next) {
  const Tensor norm = call.input(next++);
  require(x.shape.size() == 3 && norm.size() == x.dim(2), "expected x [B, L, D] and a norm [D]");
  const int64_t B = x.dim(0), L = x.dim(1), D = x.dim(2), M = B * L;
  const auto map = [&](int i, int64_t K) {
    return mapOf(call, static_cast<Form>(call.whole(branchForms + i)), call.whole(branchBiased + i) != 0, K, next);
  };
  Map q = map(0, D), k = map(1, D), v = map(2, D), o = map(3, q.N);
  const Attends attends = readAttends(call, next);
  require(q.N % attends.H == 0 && k.N == v.N && k.N == q.N / attends.H * attends.G && o.N == D, "the projections do not agree");
  static thread_local Kept queries, keys, values, heard;
  q.y = queries.of(M * q.N), k.y = keys.of(M * k.N), v.y = values.of(M * v.N);
  product({q, k, v}, M, D, x.data, {norm.data, static_cast<float>(call.number(branchEps))});
  float *out = heard.of(M * q.N);
  attendNew(attends, seen, {B, L, q.N / attends.H, q.y, k.y, v.y}, key, value, out);
  o.y = y, o.plus = x.data;
  product({o}, M, q.N, out);
}

void runBranch(Call &call) {
  int next = 1;
  const Tensor x = call.input(0);
  const Seen seen = readSeen(call, next);
  const Tensor key = call.input(next++), value = call.input(next++);
  call.countFrom(stepNumbers);
  branch(call, x, seen, key, value, call.output(x.shape).data, next);
}

/** What a gated unit is told. */
enum { unitActivation, unitEps, unitForms, unitBiased = unitForms + 3, unitNumbers = unitBiased + 3 };

/** `y = x + down(act(gate(n)) ⊙ up(n))` of `n = norm(x)`; its inputs stand from `next` on. */
void unit(Call &call, const Tensor &x, float *y, int &next) {
  const Tensor norm = call.input(next++);
  const int64_t D = x.dim(-1);
  const auto map = [&](int i, int64_t K) {
    return mapOf(call, static_cast<Form>(call.whole(unitForms + i)), call.whole(unitBiased + i) != 0, K, next);
  };
  Map gate = map(0, D), up = map(1, D), down = map(2, gate.N);
  require(norm.size() == D && down.N == D, "expected a norm [D], and a gated unit of D to D");
  gate.activation = static_cast<Activation>(call.whole(unitActivation));
  down.y = y, down.plus = x.data;
  gatedUnit(x.rows(), D, x.data, {norm.data, static_cast<float>(call.number(unitEps))}, gate, up, down);
}

/**
 * All layers of a decoder, a branch of attention and a gated unit each, and the norm after them. Given are x, what it sees and the cache
 * of each layer; where the weights lie is told after what is fixed of all layers.
 */
void runLayers(Call &call) {
  enum { count = stepNumbers, eps, first, each = branchNumbers + unitNumbers };
  const Tensor x = call.input(0), y = call.output(x.shape);
  static thread_local Kept kept;
  const Tensor between{kept.of(x.size()), x.shape};
  const int layers = static_cast<int>(call.whole(count));
  const float normEps = static_cast<float>(call.number(eps));
  int next = 1, weight = call.inputs();
  const Seen seen = readSeen(call, next);
  require(layers > 0 && call.inputs() == next + 2 * layers, "expected keys and values of each layer");
  call.placesFrom(first + layers * each);
  for (int i = 0; i < layers; i++, next += 2) {
    call.countFrom(first + i * each);
    branch(call, i ? y : x, seen, call.input(next), call.input(next + 1), between.data, weight);
    call.countFrom(first + i * each + branchNumbers);
    unit(call, between, y.data, weight);
  }
  const Tensor norm = call.input(weight);
  require(norm.size() == x.dim(-1), "expected a norm [D] after all layers");
  for (int64_t i = 0; i < y.rows(); i++) rmsRow(norm.size(), y.data + i * norm.size(), norm.data, normEps, y.data + i * norm.size());
}

const Op op{"InternvlAttendCached", run};
const Op wholeBranch{"InternvlAttentionBranch", runBranch};
const Op layers{"InternvlDecoderLayers", runLayers};
const Register<op> registered;
const Register<wholeBranch> branchRegistered;
const Register<layers> layersRegistered;
} // namespace

// Causal attention of new positions after a cache: q and k are turned by their positions, k and v are appended in place, all is
// attended. Alone; or with the norm and the projections before it, the projection after it and the sum with what it began from; or in
// all layers of a decoder, each with its gated unit. Outputs: `[B, L, H·K]` or the last sum, and the caches `[B, G, room, K]` with the
// new positions in them.
#include "affine.h"
#include "attention.h"
#include "norm.h"
#include "pool.h"
#include "rope.h"

namespace {
/** The cache's memory, handed on, or larger memory with what was in it. */
Heads grown(Call &call, int input, int output, const std::vector<int64_t> &shape, bool inPlace, int64_t past) {
  const auto heads = [&](const Tensor &t) { return Heads{t.data, t.dim(0), t.dim(1), past, t.dim(3), false, t.dim(2)}; };
  if (inPlace) {
    const Tensor before = call.input(input);
    require(before.shape == shape, "the cache is not of the shape that its keys say");
    call.pass(input, output);
    return heads(before);
  }
  const Heads to = heads(call.output(shape, output));
  if (past == 0) return to;
  const Heads from = heads(call.input(input));
  require(from.B == to.B && from.H == to.H && from.K == to.K && from.room >= past, "the cache is not of these heads");
  parallel(to.B * to.H, 1, [&](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; i++) std::copy_n(from.row(i / to.H, i % to.H, 0), past * to.K, to.row(i / to.H, i % to.H, 0));
  });
  return to;
}

/** What both ops are told first, in this order. */
enum Number { scale, heads, keyHeads, window, length, room, inPlace, padded, sunk, cached, headNormed, headEps, ownNumbers };

/** New queries `[B, L, H·K]`, keys and values `[B, L, G·K]` before their rotation, and what they attend with. */
struct New {
  int64_t B, L, H, G, K;
  const float *q, *k, *v;
  Tensor qNorm, kNorm, cos, sin, padding, sinks; // without data: none
  int key, value;                                // numbers of inputs, or -1
  int result;                                    // number of the first of the two results that are the cache
};

/** The inputs after the projections, from `next` on: norms of heads, rotary tables, cache, padding, sinks. */
void readRest(Call &call, int &next, New &given) {
  const auto some = [&](Number flag) { return call.whole(flag) != 0 ? call.input(next++) : Tensor{}; };
  given.qNorm = some(headNormed), given.kNorm = some(headNormed);
  given.cos = call.input(next++), given.sin = call.input(next++);
  given.key = call.whole(cached) ? next++ : -1, given.value = call.whole(cached) ? next++ : -1;
  given.padding = some(padded), given.sinks = some(sunk);
  const auto &[B, L, H, G, K, q, k, v, qNorm, kNorm, cos, sin, padding, sinks, key, value, result] = given;
  const int64_t all = call.whole(length) + L, R = cos.dim(-1), tables = cos.dim(0);
  require(cos.shape == sin.shape && cos.size() == tables * L * R && (tables == 1 || tables == B) && R <= K && R % 2 == 0,
          "cos and sin must be [B, 1, L, R], R even and at most K");
  require(call.whole(room) >= all, "no room for the new positions");
  require(!padding.data || padding.size() == all || padding.size() == B * all, "padding must be [B, 1, 1, Lk]");
  require(!sinks.data || sinks.size() == H, "sinks must be [H]");
  require(!qNorm.data || (qNorm.size() == K && kNorm.size() == K), "norms of heads must be [K]");
}

/** A head before the product with its like: normed, if that is asked for, and turned. */
void ready(const New &given, const Tensor &norm, float eps, const float *x, int64_t angle, float *y) {
  const int64_t R = given.cos.dim(-1);
  static thread_local Kept kept;
  if (norm.data) {
    float *normed = kept.of(given.K);
    rmsRow(given.K, x, norm.data, eps, normed);
    x = normed;
  }
  rotate(given.K, R, x, given.cos.data + angle, given.sin.data + angle, y);
}

/** Attends into `[B, L, H·K]`, and grows the cache. */
void attendNew(Call &call, const New &given, float *out) {
  const auto &[B, L, H, G, K, q, k, v, qNorm, kNorm, cos, sin, padding, sinks, key, value, result] = given;
  const int64_t past = call.whole(length), R = cos.dim(-1);
  const float eps = static_cast<float>(call.number(headEps));
  const std::vector<int64_t> shape{B, G, call.whole(room), K};
  Heads keys = grown(call, key, result, shape, call.whole(inPlace), past), values = grown(call, value, result + 1, shape, call.whole(inPlace), past);
  keys.L = values.L = past + L;
  static thread_local Kept kept;
  float *turned = kept.of(B * L * H * K);
  parallel(B * L, std::max<int64_t>(1, (1 << 14) / ((H + G) * K)), [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i++) {
      const int64_t b = i / L, l = i % L, angle = ((given.cos.dim(0) == 1 ? 0 : b) * L + l) * R;
      for (int64_t h = 0; h < given.H; h++) ready(given, given.qNorm, eps, given.q + (i * given.H + h) * given.K, angle, turned + (i * given.H + h) * given.K);
      for (int64_t g = 0; g < given.G; g++) {
        ready(given, given.kNorm, eps, given.k + (i * given.G + g) * given.K, angle, keys.row(b, g, past + l));
        std::copy_n(given.v + (i * given.G + g) * given.K, given.K, values.row(b, g, past + l));
      }
    }
  });
  const Heads queries{turned, B, H, L, K, true, L};
  attend({queries, keys, values, {out, B, H, L, K, true, L}, padding.data, sinks.data, padding.size() == past + L,
          static_cast<float>(call.number(scale)), true, call.whole(window)});
}

void run(Call &call) {
  const Tensor q = call.input(0), k = call.input(1), v = call.input(2);
  const int64_t H = call.whole(heads), G = call.whole(keyHeads);
  require(q.shape.size() == 3 && k.shape.size() == 3 && q.dim(2) % H == 0 && H % G == 0, "expected q [B, L, H*K], k and v [B, L, G*K]");
  New given{q.dim(0), q.dim(1), H, G, q.dim(2) / H, q.data, k.data, v.data, {}, {}, {}, {}, {}, {}, -1, -1, 1};
  require(k.shape == v.shape && k.dim(0) == given.B && k.dim(1) == given.L && k.dim(2) == G * given.K, "q, k and v do not agree");
  int next = 3;
  readRest(call, next, given);
  attendNew(call, given, call.output(q.shape).data);
}

/** Numbers of a branch after the own ones: forms and biased of q, k, v, o. */
enum { branchEps = ownNumbers, branchForms, branchBiased = branchForms + 4, branchNumbers = branchBiased + 4 };

/** `y = x + o(attention(q, k and v of norm(x)))`; its inputs stand from `next` on. */
void branch(Call &call, const Tensor &x, float *y, int &next, int result) {
  const Tensor norm = call.input(next++);
  require(x.shape.size() == 3 && norm.size() == x.dim(2), "expected x [B, L, D] and a norm [D]");
  const int64_t B = x.dim(0), L = x.dim(1), D = x.dim(2), M = B * L, H = call.whole(heads), G = call.whole(keyHeads);
  const auto map = [&](int i, int64_t K) {
    return mapOf(call, static_cast<Form>(call.whole(branchForms + i)), call.whole(branchBiased + i) != 0, K, next);
  };
  Map q = map(0, D), k = map(1, D), v = map(2, D), o = map(3, q.N);
  require(q.N % H == 0 && H % G == 0 && k.N == v.N && k.N == q.N / H * G && o.N == D, "the projections do not agree");
  static thread_local Kept queries, keys, values, heard;
  q.y = queries.of(M * q.N), k.y = keys.of(M * k.N), v.y = values.of(M * v.N);
  product({q, k, v}, M, D, x.data, {norm.data, static_cast<float>(call.number(branchEps))});
  New given{B, L, H, G, q.N / H, q.y, k.y, v.y, {}, {}, {}, {}, {}, {}, -1, -1, result};
  readRest(call, next, given);
  float *out = heard.of(M * q.N);
  attendNew(call, given, out);
  o.y = y, o.plus = x.data;
  product({o}, M, q.N, out);
}

void runBranch(Call &call) {
  const Tensor x = call.input(0);
  int next = 1;
  branch(call, x, call.output(x.shape).data, next, 1);
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

/** All layers of a decoder: a branch of attention and a gated unit each. */
void runLayers(Call &call) {
  const Tensor x = call.input(0), y = call.output(x.shape);
  static thread_local Kept kept;
  const Tensor between{kept.of(x.size()), x.shape};
  const int layers = static_cast<int>(call.whole(0));
  require(layers > 0, "no layers");
  int next = 1;
  for (int i = 0, from = 1; i < layers; i++, from += branchNumbers + unitNumbers) {
    call.countFrom(from);
    branch(call, i ? y : x, between.data, next, 1 + 2 * i);
    call.countFrom(from + branchNumbers);
    unit(call, between, y.data, next);
  }
}

const std::vector<const char *> outputs{"y: float", "key: float", "value: float"};
const Op op{"InternvlAttendCached", run, outputs};
const Op wholeBranch{"InternvlAttentionBranch", runBranch, outputs};
const Op layers{"InternvlDecoderLayers", runLayers, {"results: Tout"}};
const Register<op> registered;
const Register<wholeBranch> branchRegistered;
const Register<layers> layersRegistered;
} // namespace

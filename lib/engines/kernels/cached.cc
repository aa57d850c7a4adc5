// Causal attention of new positions after a cache: q and k are turned by their positions, k and v are appended in place, all is
// attended. Outputs: `[B, L, H·K]`, and the caches `[B, G, room, K]` with the new positions in them.
#include "attention.h"
#include "op.h"
#include "pool.h"
#include "rope.h"
#include <memory>

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

void run(Call &call) {
  enum { scale, heads, keyHeads, window, length, room, inPlace, padded, sunk, cached }; // numbers
  int next = 0;
  const Tensor q = call.input(next++), k = call.input(next++), v = call.input(next++), cos = call.input(next++), sin = call.input(next++);
  const int keyInput = call.whole(cached) ? next++ : -1, valueInput = call.whole(cached) ? next++ : -1;
  const Tensor padding = call.whole(padded) ? call.input(next++) : Tensor{}, sinks = call.whole(sunk) ? call.input(next++) : Tensor{};
  const int64_t H = call.whole(heads), G = call.whole(keyHeads), past = call.whole(length);
  require(q.shape.size() == 3 && k.shape.size() == 3 && q.dim(2) % H == 0 && H % G == 0, "expected q [B, L, H*K], k and v [B, L, G*K]");
  const int64_t B = q.dim(0), L = q.dim(1), K = q.dim(2) / H, R = cos.dim(-1), tables = cos.dim(0);
  require(k.shape == v.shape && k.dim(0) == B && k.dim(1) == L && k.dim(2) == G * K, "q, k and v do not agree");
  require(cos.shape == sin.shape && cos.size() == tables * L * R && (tables == 1 || tables == B) && R <= K && R % 2 == 0,
          "cos and sin must be [B, 1, L, R], R even and at most K");
  require(call.whole(room) >= past + L, "no room for the new positions");
  require(!padding.data || padding.size() == past + L || padding.size() == B * (past + L), "padding must be [B, 1, 1, Lk]");
  require(!sinks.data || sinks.size() == H, "sinks must be [H]");

  const std::vector<int64_t> shape{B, G, call.whole(room), K};
  Heads keys = grown(call, keyInput, 1, shape, call.whole(inPlace), past), values = grown(call, valueInput, 2, shape, call.whole(inPlace), past);
  keys.L = values.L = past + L;
  static thread_local std::unique_ptr<float[]> kept;
  static thread_local int64_t size = 0;
  if (size < q.size()) kept.reset(), kept.reset(new float[q.size()]), size = q.size();
  float *turned = kept.get();
  parallel(B * L, std::max<int64_t>(1, (1 << 14) / ((H + G) * K)), [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i++) {
      const int64_t b = i / L, l = i % L, angle = ((tables == 1 ? 0 : b) * L + l) * R;
      for (int64_t h = 0; h < H; h++) rotate(K, R, q.data + (i * H + h) * K, cos.data + angle, sin.data + angle, turned + (i * H + h) * K);
      for (int64_t g = 0; g < G; g++) {
        rotate(K, R, k.data + (i * G + g) * K, cos.data + angle, sin.data + angle, keys.row(b, g, past + l));
        std::copy_n(v.data + (i * G + g) * K, K, values.row(b, g, past + l));
      }
    }
  });
  const Heads queries{turned, B, H, L, K, true, L}, out{call.output(q.shape).data, B, H, L, K, true, L};
  attend({queries, keys, values, out, padding.data, sinks.data, padding.size() == past + L, static_cast<float>(call.number(scale)), true, call.whole(window)});
}

const Op op{"InternvlAttendCached", run,
            {"y: float", "key: float", "value: float"}};
const Register<op> registered;
} // namespace

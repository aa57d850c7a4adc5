// Rotary positions: entry i of a head is turned with entry i + R/2 by its position's angle.
#include "op.h"
#include "pool.h"
#include "rope.h"

namespace {
/** x `[B, H, L, K]`, or `[B, L, H·K]` with the number of heads, to `[B, H, L, K]`; cos and sin `[B or 1, 1, L, R]`. */
void rope(Call &call) {
  const Tensor x = call.input(0), cos = call.input(1), sin = call.input(2);
  const bool merged = x.shape.size() == 3;
  const int64_t heads = call.whole(0);
  require(merged ? heads > 0 && x.dim(2) % heads == 0 : x.shape.size() == 4, "expected [B, H, L, K], or [B, L, H*K] and the number of heads");
  const int64_t B = x.dim(0), H = merged ? heads : x.dim(1), L = merged ? x.dim(1) : x.dim(2), K = merged ? x.dim(2) / H : x.dim(3);
  const int64_t R = cos.dim(-1), tables = cos.dim(0);
  require(cos.shape == sin.shape && cos.size() == tables * L * R && (tables == 1 || tables == B) && R <= K && R % 2 == 0,
          "cos and sin must be [B, 1, L, R], R even and at most K");
  const Tensor y = call.output({B, H, L, K});
  parallel(B * H * L, std::max<int64_t>(1, (1 << 14) / K), [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i++) {
      const int64_t b = i / L / H, h = i / L % H, l = i % L, angle = ((tables == 1 ? 0 : b) * L + l) * R;
      rotate(K, R, x.data + (merged ? (b * L + l) * H + h : i) * K, cos.data + angle, sin.data + angle, y.data + i * K);
    }
  });
}

const Op op{"InternvlRope", rope};
const Register<op> registered;
} // namespace

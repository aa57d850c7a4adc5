// The way back of `x Wᵀ + b`: dx = dy W, dW = dyᵀ x, db = Σ dy, each only where it is wanted.
#include "op.h"
#include "product.h"
#include "sums.h"

namespace {
void run(Call &call) {
  enum { forX, forWeight, forBias }; // numbers
  const Tensor dy = call.input(0), x = call.input(1), weight = call.input(2);
  const int64_t M = x.rows(), K = x.dim(-1), N = weight.dim(0);
  require(dy.rows() == M && dy.dim(-1) == N && weight.dim(1) == K, "dy [.., N], x [.., K] and weight [N, K] must agree");
  const auto wanted = [&](int i) { return call.number(i) != 0; };
  const Tensor dx = call.output(wanted(forX) ? x.shape : std::vector<int64_t>{0}, 0);
  const Tensor dWeight = call.output(wanted(forWeight) ? weight.shape : std::vector<int64_t>{0}, 1);
  const Tensor dBias = call.output({wanted(forBias) ? N : 0}, 2);
  const Matrix slopes = rowsOf(dy.data, M, N, N);
  if (wanted(forX)) multiplyOnAll(slopes, rowsOf(weight.data, N, K, K), dx.data, K);
  if (wanted(forWeight)) multiplyOnAll(slopes.transposed(), rowsOf(x.data, M, K, K), dWeight.data, K);
  if (wanted(forBias))
    sumOverRows(M, N, dBias.data, [&](int64_t row, float *sums) {
      const float *d = dy.data + row * N, *before = sums;
      map(N, sums, [&](auto at) { return at(before) + at(d); });
    });
}

const Op op{"InternvlAffineSlopes", run, {"dx: float", "dweight: float", "dbias: float"}};
const Register<op> registered;
} // namespace

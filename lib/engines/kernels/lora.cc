// `x Wᵀ + b + s · (x Aᵀ) Bᵀ`: a map with a low-rank update beside it, whose x may be another (dropout), and its way back.
#include "affine.h"
#include "product.h"

namespace {
/** A `[rank, K]`, B `[N, rank]`. */
struct Update {
  Tensor a, b;
  float scale;
  int64_t rank() const { return a.dim(0); }
};

Update updateOf(Call &call, int64_t N, int64_t K, int &next) {
  const Tensor a = call.input(next++), b = call.input(next++), scale = call.input(next++);
  require(a.shape.size() == 2 && b.shape.size() == 2 && a.dim(1) == K && b.dim(0) == N && a.dim(0) == b.dim(1) && scale.size() == 1,
          "lora_A [rank, K], lora_B [N, rank] and the weight [N, K] must agree");
  return {a, b, *scale.data};
}

Matrix matrix(const Tensor &x) { return rowsOf(x.data, x.rows(), x.dim(-1), x.dim(-1)); }

/** `scale · a b`, of few columns. */
class Small {
 public:
  Small(const Matrix &a, const Matrix &b, float scale) : rows(a.rows), columns(b.columns), memory(new float[a.rows * b.columns]) {
    multiplyOnAll(a, b, memory.get(), columns);
    for (int64_t i = 0; i < rows * columns; i++) memory[i] *= scale;
  }
  Matrix matrix() const { return rowsOf(memory.get(), rows, columns, columns); }

 private:
  int64_t rows, columns;
  std::unique_ptr<float[]> memory;
};

void forward(Call &call) {
  enum { biased, dropped }; // numbers
  int next = 0;
  const Tensor x = call.input(next++);
  const int64_t M = x.rows(), K = x.dim(-1);
  Map map = mapOf(call, Form::float32, call.whole(biased), K, next);
  const Update update = updateOf(call, map.N, K, next);
  const Tensor into = call.whole(dropped) ? call.input(next) : x;
  require(into.shape == x.shape, "what goes into lora_A must be as x");
  std::vector<int64_t> shape = x.shape;
  shape.back() = map.N;
  map.y = call.output(shape).data;
  product({map}, M, K, x.data);
  const Small low(matrix(into), matrix(update.a).transposed(), update.scale);
  multiplyOnAll(low.matrix(), matrix(update.b).transposed(), map.y, map.N, true);
}

/** With v = s · dy B: dx = dy W + v A, dA = vᵀ x, dB = s · dyᵀ (x Aᵀ); where another x went into A, v A is its own. */
void slopes(Call &call) {
  enum { forX, forInto, forA, forB, dropped }; // numbers
  const Tensor dy = call.input(0), x = call.input(1), weight = call.input(2);
  const int64_t N = weight.dim(0), K = weight.dim(1);
  int next = 3;
  const Update update = updateOf(call, N, K, next);
  const Tensor into = call.whole(dropped) ? call.input(next) : x;
  require(dy.rows() == x.rows() && dy.dim(-1) == N && x.dim(-1) == K && into.shape == x.shape, "dy [.., N], x [.., K] and weight [N, K] must agree");
  const auto output = [&](int i, const std::vector<int64_t> &shape) { return call.output(call.whole(i) ? shape : std::vector<int64_t>{0}, i).data; };
  float *dx = output(forX, x.shape), *dInto = output(forInto, x.shape), *dA = output(forA, update.a.shape), *dB = output(forB, update.b.shape);
  const Small v(matrix(dy), matrix(update.b), update.scale);
  if (call.whole(forX)) multiplyOnAll(matrix(dy), matrix(weight), dx, K);
  if (float *low = call.whole(dropped) ? (call.whole(forInto) ? dInto : nullptr) : (call.whole(forX) ? dx : nullptr))
    multiplyOnAll(v.matrix(), matrix(update.a), low, K, low == dx);
  if (call.whole(forA)) multiplyOnAll(v.matrix().transposed(), matrix(into), dA, K);
  if (call.whole(forB)) {
    const Small low(matrix(into), matrix(update.a).transposed(), update.scale);
    multiplyOnAll(matrix(dy).transposed(), low.matrix(), dB, update.rank());
  }
}

const Op forwardOp{"InternvlLoraAffine", forward};
const Op slopesOp{"InternvlLoraAffineSlopes", slopes, {"dx: float", "dinto: float", "da: float", "db: float"}};
const Register<forwardOp> forwardRegistered;
const Register<slopesOp> slopesRegistered;
} // namespace

// Writes the addresses of tensors into the parameter buffer, for operators that read the same hundreds of weights in each call. An address is
// valid as long as the tensor lives; the caller of such an operator keeps the tensors alive.
#include "operator/operator.h"

namespace {
struct TensorAddresses {
  static constexpr const char *operatorName = "InternvlTensorAddresses";
  static constexpr const char *outputs[] = {"y: float"};
  static constexpr int groupSize = 0;
  static TensorAddresses read(Reader &) { return {}; }
};

void writeAddresses(const TensorAddresses &, Reader &, OperatorContext &context) {
  const int count = context.numInputs();
  require(count * static_cast<int>(sizeof(TensorAddress) / sizeof(double)) <= maxParameters, "too many tensors");
  TensorAddress *to = reinterpret_cast<TensorAddress *>(parameterBuffer);
  for (int i = 0; i < count; i++) {
    const auto [x, type] = context.input(i);
    require(x.rank() <= 2, "a tensor of more than two axes");
    to[i] = {static_cast<double>(reinterpret_cast<uintptr_t>(x.data)), static_cast<double>(type), static_cast<double>(x.rank()), {}};
    for (int64_t axis = 0; axis < x.rank(); axis++) to[i].sizes[axis] = static_cast<double>(x.shape[axis]);
  }
  context.output({});
}

const Register<TensorAddresses, writeAddresses> registered;
} // namespace

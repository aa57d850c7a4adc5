// Reads and checks the parameters and inputs of a call in the order of the schema.
#pragma once
#include <algorithm>
#include "operator/axes.h"
#include "operator/operator-context.h"
#include "operator/parameter-buffer.h"

/** A tensor described by numbers. A fused decoder reads hundreds of weights in this way instead of receiving them as inputs in each step. */
struct TensorAddress {
  double address, type, rank, sizes[2];
};

class Reader {
 public:
  /** Reads inputs of the operator; parameters from the start of the buffer. */
  explicit Reader(OperatorContext &context) : context(context), values(parameterBuffer), count(context.numInputs()) {}

  /** Reads parameters from `values` on, and tensors from their addresses: their number, then a TensorAddress for each. */
  Reader(OperatorContext &context, const double *values, const double *tensors)
      : context(context), values(values), addresses(reinterpret_cast<const TensorAddress *>(tensors + 1)), count(tensors[0]) {}

  float readFloat() { return static_cast<float>(*values++); }
  bool readBool() { return *values++ != 0; }

  /** A whole number from 0 on. */
  int64_t readInt(const char *name) {
    const double value = *values++;
    if (!(value >= 0 && value <= 9007199254740991.0)) throw std::invalid_argument(std::string(name) + " must be a whole number from 0 on");
    return static_cast<int64_t>(value);
  }

  /** An enum value whose number is in [first, end). */
  template <class Enum> Enum readEnum(const char *name, int first, int end) {
    const double value = *values++;
    if (!(value >= first && value < end)) throw std::invalid_argument(std::string(name) + " has no such value");
    return static_cast<Enum>(static_cast<int>(value));
  }

  /** The next tensor. Throws unless its type and shape are those of the schema. */
  Tensor input(const char *name, TF_DataType type, const char *pattern, Axes &axes, Format format = Format::float32, bool transposed = false) {
    if (next >= count) throw std::invalid_argument(std::string(name) + " is missing");
    auto [tensor, given] = addresses ? fromAddress(addresses[next]) : context.input(next);
    next++;
    if (given != type) throw std::invalid_argument(std::string(name) + " must be " + (type == TF_INT32 ? "int32" : "float32"));
    if (transposed) axes.match(name, exchanged(tensor.shape), pattern, format);
    else axes.match(name, tensor.shape, pattern, format);
    return tensor;
  }

  /** The next tensor, a weight in a quantization format. Its last two axes are exchanged in the format `transposed`, which is float32 for none. */
  Tensor weight(const char *name, Format format, const char *pattern, Axes &axes, Format transposed = Format::float32) {
    const bool isPacked = format != Format::float32;
    return input(name, isPacked ? TF_INT32 : TF_FLOAT, pattern, axes, format, isPacked && format == transposed);
  }

  /** Number of tensors that have not been read. */
  int remaining() const { return count - next; }

  /** The parameters that have not been read. */
  const double *rest() const { return values; }

 private:
  /** A shape with its last two axes exchanged. */
  static std::vector<int64_t> exchanged(std::vector<int64_t> shape) {
    if (shape.size() >= 2) std::swap(shape[shape.size() - 1], shape[shape.size() - 2]);
    return shape;
  }

  static std::pair<Tensor, TF_DataType> fromAddress(const TensorAddress &from) {
    Tensor tensor{reinterpret_cast<float *>(static_cast<uintptr_t>(from.address)), {}};
    for (int axis = 0; axis < std::min(from.rank, 2.0); axis++) tensor.shape.push_back(static_cast<int64_t>(from.sizes[axis]));
    return {tensor, static_cast<TF_DataType>(static_cast<int>(from.type))};
  }

  OperatorContext &context;
  const double *values;
  const TensorAddress *addresses = nullptr;
  int count, next = 0;
};

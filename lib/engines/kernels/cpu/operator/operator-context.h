// One execution of an operator: its inputs and outputs in TensorFlow.
#pragma once
#include <utility>
#include "operator/tensor.h"
#include "operator/tensorflow.h"

class OperatorContext {
 public:
  explicit OperatorContext(TF_OpKernelContext *context) : context(context) {}
  OperatorContext(const OperatorContext &) = delete;
  ~OperatorContext() {
    for (TF_Tensor *each : held) TF_DeleteTensor(each);
    TF_DeleteStatus(status);
  }

  int numInputs() const { return TF_NumInputs(context); }

  /** An input with its type. */
  std::pair<Tensor, TF_DataType> input(int i) {
    TF_Tensor *raw = nullptr;
    TF_GetInput(context, i, &raw, status);
    const Tensor tensor = view(raw);
    return {tensor, TF_TensorType(raw)};
  }

  /** Allocates output number i. */
  Tensor output(const std::vector<int64_t> &shape, int i = 0, TF_DataType type = TF_FLOAT) {
    const Tensor wanted{nullptr, shape};
    return view(TF_AllocateOutput(context, i, type, shape.data(), static_cast<int>(shape.size()), wanted.size() * sizeof(float), status));
  }

  /** Sets output number 0 to existing memory at a multiple of 64 bytes (TensorFlow copies other memory), which `release` frees. */
  void outputOf(void *data, const std::vector<int64_t> &shape, TF_DataType type, void (*release)(void *data, size_t bytes, void *)) {
    const size_t bytes = Tensor{nullptr, shape}.size() * sizeof(float);
    TF_Tensor *raw = TF_NewTensor(type, shape.data(), static_cast<int>(shape.size()), data, bytes, release, nullptr);
    if (!raw) throw std::runtime_error("no tensor could be made");
    held.push_back(raw);
    TF_SetOutput(context, 0, raw, status);
    if (TF_GetCode(status) != TF_OK) throw std::runtime_error(TF_Message(status));
  }

  /** Allocates output number i if it is needed, otherwise an empty one. */
  Tensor outputIf(bool needed, const std::vector<int64_t> &shape, int i) { return output(needed ? shape : std::vector<int64_t>{0}, i); }

  void fail(const char *message) {
    TF_SetStatus(status, TF_INVALID_ARGUMENT, message);
    TF_OpKernelContext_Failure(context, status);
  }

 private:
  Tensor view(TF_Tensor *raw) {
    if (TF_GetCode(status) != TF_OK || !raw) throw std::runtime_error(TF_Message(status));
    held.push_back(raw);
    Tensor tensor{static_cast<float *>(TF_TensorData(raw)), {}};
    for (int i = 0; i < TF_NumDims(raw); i++) tensor.shape.push_back(TF_Dim(raw, i));
    return tensor;
  }

  TF_OpKernelContext *context;
  TF_Status *status = TF_NewStatus();
  std::vector<TF_Tensor *> held;
};

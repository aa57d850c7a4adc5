// An op of our own in TensorFlow: its name, its inputs and attributes, and a function. `Register` makes it known when the library loads.
#pragma once
#include <cstdio>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>
#include "numbers.h"
#include "tensorflow.h"

/** A tensor: a view of TensorFlow's memory. Its numbers are float32, or int32 where an op says so. */
struct Tensor {
  float *data = nullptr;
  std::vector<int64_t> shape;

  int32_t *words() const { return reinterpret_cast<int32_t *>(data); }

  int64_t dim(int i) const { return shape[i < 0 ? shape.size() + i : i]; }
  int64_t size() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
  /** Product of all axes but the last. */
  int64_t rows() const { return shape.empty() || dim(-1) == 0 ? 0 : size() / dim(-1); }
};

/** A tensor in numbers: an op that is told of hundreds need not be given them at every run, see CONTRIBUTING. */
struct Place {
  double address, type, rank, sizes[2];
};

/** One run of an op. What it throws becomes TensorFlow's error. */
class Call {
 public:
  explicit Call(TF_OpKernelContext *context) : context(context) {}
  ~Call() {
    for (TF_Tensor *each : held) TF_DeleteTensor(each);
    TF_DeleteStatus(status);
  }
  int inputs() const { return TF_NumInputs(context); }
  /** Throws where it holds numbers of another type. */
  Tensor input(int i, TF_DataType type = TF_FLOAT) {
    const auto [seen, known] = i < inputs() ? given(i) : toldOf(i - inputs());
    if (known != type) throw std::invalid_argument("input " + std::to_string(i) + " must be " + (type == TF_FLOAT ? "float32" : "int32"));
    return seen;
  }
  /** Whatever type it is of. */
  std::pair<Tensor, TF_DataType> given(int i) {
    TF_Tensor *tensor = nullptr;
    TF_GetInput(context, i, &tensor, status);
    return {view(tensor), TF_TensorType(tensor)};
  }
  /** Memory for the result of that number. */
  Tensor output(const std::vector<int64_t> &shape, int number = 0, TF_DataType type = TF_FLOAT) {
    Tensor wanted{nullptr, shape};
    return view(TF_AllocateOutput(context, number, type, shape.data(), shape.size(), wanted.size() * sizeof(float), status));
  }
  void fail(const char *message) {
    TF_SetStatus(status, TF_INVALID_ARGUMENT, message);
    TF_OpKernelContext_Failure(context, status);
  }
  /** The numbers that register.ts names for the op, in its order; whole ones up to 2⁵³. */
  double number(int i) const { return told[i]; }
  int64_t whole(int i) const { return static_cast<int64_t>(told[i]); }
  /** From now on numbers are counted from that one. */
  void countFrom(int first) { told = numbers + first; }
  /** Inputs behind those that are given lie where the numbers from that one on say: how many they are, and a `Place` of each. */
  void placesFrom(int first) { places = numbers + first; }

 private:
  Tensor view(TF_Tensor *tensor) {
    if (TF_GetCode(status) != TF_OK || !tensor) throw std::runtime_error(TF_Message(status));
    held.push_back(tensor);
    Tensor seen{static_cast<float *>(TF_TensorData(tensor)), {}};
    for (int i = 0; i < TF_NumDims(tensor); i++) seen.shape.push_back(TF_Dim(tensor, i));
    return seen;
  }
  std::pair<Tensor, TF_DataType> toldOf(int i) const {
    if (!places || i >= places[0]) throw std::invalid_argument("too few inputs");
    const Place &place = reinterpret_cast<const Place *>(places + 1)[i];
    Tensor seen{reinterpret_cast<float *>(static_cast<uintptr_t>(place.address)), {}};
    for (int axis = 0; axis < place.rank; axis++) seen.shape.push_back(static_cast<int64_t>(place.sizes[axis]));
    return {seen, static_cast<TF_DataType>(static_cast<int>(place.type))};
  }
  const double *told = numbers; // of the thread that runs the op, not of those that help it
  const double *places = nullptr;
  TF_OpKernelContext *context;
  TF_Status *status = TF_NewStatus();
  std::vector<TF_Tensor *> held;
};

inline void require(bool holds, const char *otherwise) {
  if (!holds) throw std::invalid_argument(otherwise);
}

/** Its inputs are a list of any types, so that the last ones, or all, may be missing. */
struct Op {
  const char *name;
  void (*compute)(Call &);
  std::vector<const char *> outputs = {"y: float"};
};

/** A static `Register<op>` registers the op and its CPU kernel while the library loads. */
template <const Op &op> struct Register {
  static void *create(TF_OpKernelConstruction *) { return nullptr; }
  static void compute(void *, TF_OpKernelContext *context) {
    Call call(context);
    try {
      require(numbers != nullptr, "no numbers on this thread");
      op.compute(call);
    } catch (const std::exception &error) {
      call.fail((std::string(op.name) + ": " + error.what()).c_str());
    }
  }
  static void destroy(void *) {}

  Register() {
    TF_Status *status = TF_NewStatus();
    auto *definition = TF_NewOpDefinitionBuilder(op.name);
    TF_OpDefinitionBuilderAddAttr(definition, "T: list(type) >= 0");
    TF_OpDefinitionBuilderAddInput(definition, "x: T");
    for (const char *output : op.outputs) TF_OpDefinitionBuilderAddOutput(definition, output);
    TF_OpDefinitionBuilderSetShapeInferenceFunction(definition, anyShape);
    TF_RegisterOpDefinition(definition, status);
    if (TF_GetCode(status) == TF_OK)
      TF_RegisterKernelBuilder(op.name, TF_NewKernelBuilder(op.name, "CPU", create, compute, destroy), status);
    if (TF_GetCode(status) != TF_OK) std::fprintf(stderr, "internvl: %s: %s\n", op.name, TF_Message(status));
    TF_DeleteStatus(status);
  }
  static void anyShape(TF_ShapeInferenceContext *context, TF_Status *status) {
    TF_ShapeInferenceContextSetUnknownShape(context, status);
  }
};

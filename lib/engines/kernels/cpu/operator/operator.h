// Registers operators with TensorFlow. All inputs are one list of any types, so optional inputs may be left out.
#pragma once
#include <cstdio>
#include "operator/kernel-parameters.h"

/**
 * A static `Register<kernels::X, compute>` registers operator X and its CPU kernel while the library loads. The kernel reads and checks
 * `kernels::X`, then calls `compute`. An exception becomes the error of the TensorFlow operator.
 */
template <class Kernel, void (*compute)(const Kernel &, Reader &, OperatorContext &)> class Register {
 public:
  Register() {
    TF_Status *status = TF_NewStatus();
    auto *definition = TF_NewOpDefinitionBuilder(Kernel::operatorName);
    TF_OpDefinitionBuilderAddAttr(definition, "T: list(type) >= 0");
    TF_OpDefinitionBuilderAddInput(definition, "x: T");
    if (Kernel::groupSize > 0) TF_OpDefinitionBuilderAddAttr(definition, "N: int >= 0"); // the outputs are lists of N tensors
    for (const char *output : Kernel::outputs) TF_OpDefinitionBuilderAddOutput(definition, output);
    TF_OpDefinitionBuilderSetShapeInferenceFunction(definition, unknownShape);
    TF_RegisterOpDefinition(definition, status);
    if (TF_GetCode(status) == TF_OK)
      TF_RegisterKernelBuilder(Kernel::operatorName, TF_NewKernelBuilder(Kernel::operatorName, "CPU", create, run, destroy), status);
    if (TF_GetCode(status) != TF_OK) std::fprintf(stderr, "internvl: %s: %s\n", Kernel::operatorName, TF_Message(status));
    TF_DeleteStatus(status);
  }

 private:
  static void run(void *, TF_OpKernelContext *raw) {
    OperatorContext context(raw);
    try {
      require(parameterBuffer != nullptr, "the kernels are not loaded on this thread");
      Reader reader(context);
      const Kernel kernel = Kernel::read(reader);
      compute(kernel, reader, context);
    } catch (const std::exception &error) {
      context.fail((std::string(Kernel::operatorName) + ": " + error.what()).c_str());
    }
  }
  static void *create(TF_OpKernelConstruction *) { return nullptr; }
  static void destroy(void *) {}
  static void unknownShape(TF_ShapeInferenceContext *context, TF_Status *status) { TF_ShapeInferenceContextSetUnknownShape(context, status); }
};

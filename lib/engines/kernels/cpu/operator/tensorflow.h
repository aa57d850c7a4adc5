// The part of the TensorFlow C API that the kernels use, declared here so that they compile without the TensorFlow headers.
// The API is stable across releases. Source: tensorflow/c/{kernels,ops,tf_tensor,tf_status}.h.
#pragma once
#include <cstddef>
#include <cstdint>

extern "C" {
struct TF_Status;
struct TF_Tensor;
struct TF_OpDefinitionBuilder;
struct TF_KernelBuilder;
struct TF_OpKernelConstruction;
struct TF_OpKernelContext;
struct TF_ShapeInferenceContext;
enum TF_DataType { TF_FLOAT = 1, TF_INT32 = 3 };
enum TF_Code { TF_OK = 0, TF_INVALID_ARGUMENT = 3 };

TF_Status *TF_NewStatus();
void TF_DeleteStatus(TF_Status *);
TF_Code TF_GetCode(const TF_Status *);
const char *TF_Message(const TF_Status *);
void TF_SetStatus(TF_Status *, TF_Code, const char *);

int TF_NumDims(const TF_Tensor *);
int64_t TF_Dim(const TF_Tensor *, int);
void *TF_TensorData(const TF_Tensor *);
TF_DataType TF_TensorType(const TF_Tensor *);
void TF_DeleteTensor(TF_Tensor *);
TF_Tensor *TF_NewTensor(TF_DataType, const int64_t *, int, void *, size_t, void (*)(void *, size_t, void *), void *);

TF_OpDefinitionBuilder *TF_NewOpDefinitionBuilder(const char *);
void TF_OpDefinitionBuilderAddAttr(TF_OpDefinitionBuilder *, const char *);
void TF_OpDefinitionBuilderAddInput(TF_OpDefinitionBuilder *, const char *);
void TF_OpDefinitionBuilderAddOutput(TF_OpDefinitionBuilder *, const char *);
void TF_OpDefinitionBuilderSetShapeInferenceFunction(TF_OpDefinitionBuilder *, void (*)(TF_ShapeInferenceContext *, TF_Status *));
void TF_ShapeInferenceContextSetUnknownShape(TF_ShapeInferenceContext *, TF_Status *);
void TF_RegisterOpDefinition(TF_OpDefinitionBuilder *, TF_Status *);

TF_KernelBuilder *TF_NewKernelBuilder(const char *, const char *, void *(*)(TF_OpKernelConstruction *),
                                      void (*)(void *, TF_OpKernelContext *), void (*)(void *));
void TF_RegisterKernelBuilder(const char *, TF_KernelBuilder *, TF_Status *);
void TF_OpKernelContext_Failure(TF_OpKernelContext *, TF_Status *);
int TF_NumInputs(TF_OpKernelContext *);
void TF_GetInput(TF_OpKernelContext *, int, TF_Tensor **, TF_Status *);
void TF_SetOutput(TF_OpKernelContext *, int, const TF_Tensor *, TF_Status *);
TF_Tensor *TF_AllocateOutput(TF_OpKernelContext *, int, TF_DataType, const int64_t *, int, size_t, TF_Status *);
}

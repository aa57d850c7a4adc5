// Settings of the library, which hold until JavaScript changes them.
#pragma once
#include "operator/kernel-enums.h"
#include "operator/parameter-buffer.h"

/** The settings of the calling thread. schema.ts (`kernelSettings`) has the same order. */
struct KernelSettings {
  double float32Activations; // 1: activations are neither quantized nor rounded to bfloat16
  double gemmKinds[5];       // a GemmKind for each Format
  double attentionKind;      // a GemmKind
};
static_assert(sizeof(KernelSettings) == numSettings * sizeof(double));

inline const KernelSettings &kernelSettings() { return *reinterpret_cast<const KernelSettings *>(parameterBuffer + maxParameters); }

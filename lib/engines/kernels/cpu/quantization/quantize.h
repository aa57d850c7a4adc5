// Quantization of a weight.
#pragma once
#include "quantization/format.h"

/** Quantizes one row of K float32 weights; the format is not float32. */
void quantizeRow(Format format, const float *w, int64_t K, int32_t *packed);

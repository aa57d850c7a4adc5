// A pre-norm attention block with a KV cache.
#pragma once
#include "attention/cached-attention.h"
#include "operator/kernel-parameters.h"

/** `y = x + o(attention(q, k and v of norm(x)))`, x and y `[B, L, D]`; the head size is axis K. */
void attentionBlock(const kernels::AttentionWeights &, const Axes &, const float *x, const NewPositions &, const Tensor &key, const Tensor &value,
                    float *y);

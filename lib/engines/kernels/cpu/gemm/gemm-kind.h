// The kinds of arithmetic that a GEMM can run in.
#pragma once
#include <string>
#include "quantization/format.h"

/** Whether this processor can run a kind with weights in a format. */
bool isAvailable(GemmKind, Format);

/** The kind of a GEMM with weights in a format: by the settings, else a default that needs no measurement. */
GemmKind gemmKind(Format);

/** The kind of attention of many queries that may be rounded: float32, amxBfloat16, or int8 for the products of queries and keys. */
GemmKind attentionKind();

/** Names of the kinds that this processor can run, separated by spaces. */
std::string gemmKindNames();

// A block of queries whose attention is computed together. Vector lanes are queries.
#pragma once
#include <memory>
#include "attention/attention.h"
#include "gemm/microkernel.h"

constexpr int64_t R = wideRows, blockQueries = wideVecs * W, blockKeys = 128; // R keys, or dimensions of values, are a panel

struct Block {
  std::unique_ptr<float[]> q, scores, out; // [K][queries] in float32 or in words of four bytes, [keys][queries], [K][queries]
  Vec maximum[wideVecs], total[wideVecs], firstKey[wideVecs], position[wideVecs];
};

// Bytes of an open file, read on all threads. A file is its descriptor; both throw when it ends before, or can't be read.
#pragma once
#include <cstdint>
#include <functional>

/** Fills `into` with the `bytes` bytes from `offset`. */
void readInto(int file, int64_t offset, int64_t bytes, char *into);

/**
 * `body(bytes, from, to)` for the rows [0, rows) of `rowBytes` each from `offset`: whole rows, some 256 KiB at a time. The bytes
 * are good until body returns, and lie in the cache of the processor that it runs on.
 */
void readRows(int file, int64_t offset, int64_t rows, int64_t rowBytes,
              const std::function<void(const char *bytes, int64_t from, int64_t to)> &body);

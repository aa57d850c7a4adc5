// Reads an open file, given as its descriptor, on all threads. Both functions throw if the file is too short or unreadable.
#pragma once
#include <cstdint>
#include <functional>

/** Size of an open file in bytes, -1 if the descriptor is invalid. */
int64_t fileSize(int file);

/** Reads `bytes` bytes at `offset` into `into`. */
void readInto(int file, int64_t offset, int64_t bytes, char *into);

/**
 * Calls `body(bytes, from, to)` for rows `[0, rows)` of `rowBytes` bytes each, starting at `offset`, in pieces of whole rows of about
 * 256 KiB. `bytes` is valid until `body` returns.
 */
void readRows(int file, int64_t offset, int64_t rows, int64_t rowBytes,
              const std::function<void(const char *bytes, int64_t from, int64_t to)> &body);

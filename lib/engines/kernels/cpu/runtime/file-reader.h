// Reads an open file, given as its descriptor, on all threads. The readers throw if the file is too short or unreadable.
#pragma once
#include <cstdint>
#include <functional>

/** Size of an open file in bytes, -1 if the descriptor is invalid. */
int64_t fileSize(int file);

/** Reads `bytes` bytes at `offset` into `into`. */
void readInto(int file, int64_t offset, int64_t bytes, char *into);

/**
 * Maps a range of a file into memory, without a copy: pages are read at first use, and shared with other processes until they are written,
 * which leaves the file as it is. Null if the range is small, does not start at a multiple of 64 bytes, or cannot be mapped. A file that
 * is cut short later ends the process at the next use of its pages.
 */
void *mapRange(int file, int64_t offset, int64_t bytes);

/** Unmaps a range that `mapRange` returned. */
void unmapRange(void *data, size_t bytes, void *);

/**
 * Calls `body(bytes, from, to)` for rows `[0, rows)` of `rowBytes` bytes each, starting at `offset`, in pieces of whole rows of about
 * 256 KiB. `bytes` is valid until `body` returns.
 */
void readRows(int file, int64_t offset, int64_t rows, int64_t rowBytes,
              const std::function<void(const char *bytes, int64_t from, int64_t to)> &body);

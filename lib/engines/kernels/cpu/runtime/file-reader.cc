#include "runtime/file-reader.h"
#include "runtime/thread-pool.h"
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <stdexcept>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

namespace {
constexpr int64_t pieceBytes = 1 << 18; // a piece and its converted values stay in the L2 cache

/** Reads all bytes; false at the end of the file or on an error. */
bool fill(int file, int64_t offset, int64_t bytes, char *into) {
  while (bytes > 0) {
    const ssize_t n = pread(file, into, bytes, offset);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    into += n, offset += n, bytes -= n;
  }
  return true;
}

/** Runs `read(from, to)` over [0, n) on all threads. Throws on the calling thread if any call failed: pool threads must not throw. */
void allOf(int64_t n, int64_t grain, const std::function<bool(int64_t, int64_t)> &read) {
  std::atomic<bool> whole{true};
  parallel(n, grain, [&](int64_t from, int64_t to) {
    if (!read(from, to)) whole = false;
  });
  if (!whole) throw std::runtime_error("the file is too short, or cannot be read");
}
} // namespace

int64_t fileSize(int file) {
  struct stat status;
  return fstat(file, &status) == 0 ? static_cast<int64_t>(status.st_size) : -1;
}

void readInto(int file, int64_t offset, int64_t bytes, char *into) {
  allOf(bytes, pieceBytes, [&](int64_t from, int64_t to) { return fill(file, offset + from, to - from, into + from); });
}

void *mapRange(int file, int64_t offset, int64_t bytes) {
  constexpr int64_t alignment = 64, smallest = 1 << 16; // of TensorFlow's tensors; below, a mapping costs more than a copy
  if (bytes < smallest || offset % alignment != 0) return nullptr;
  const int64_t before = offset % sysconf(_SC_PAGESIZE);
  void *pages = mmap(nullptr, before + bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, offset - before);
  if (pages == MAP_FAILED) return nullptr;
  madvise(pages, before + bytes, MADV_WILLNEED);
  return static_cast<char *>(pages) + before;
}

void unmapRange(void *data, size_t bytes, void *) {
  const size_t before = reinterpret_cast<uintptr_t>(data) % sysconf(_SC_PAGESIZE);
  munmap(static_cast<char *>(data) - before, before + bytes);
}

void readRows(int file, int64_t offset, int64_t rows, int64_t rowBytes,
              const std::function<void(const char *bytes, int64_t from, int64_t to)> &body) {
  allOf(rows, std::max<int64_t>(1, pieceBytes / std::max<int64_t>(1, rowBytes)), [&](int64_t from, int64_t to) {
    static thread_local std::vector<char> piece;
    const int64_t bytes = (to - from) * rowBytes;
    if (static_cast<int64_t>(piece.size()) < bytes) piece.resize(bytes);
    const bool whole = fill(file, offset + from * rowBytes, bytes, piece.data());
    if (whole) body(piece.data(), from, to);
    return whole;
  });
}

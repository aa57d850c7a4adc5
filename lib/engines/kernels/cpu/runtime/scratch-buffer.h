// Scratch memory for intermediate results.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#if defined(__linux__)
#include <sys/mman.h>
#endif

/**
 * Reusable scratch buffer: an allocation in every call would cost up to a tenth of a matrix product. Large buffers use huge pages
 * to reduce TLB misses.
 */
class ScratchBuffer {
 public:
  /** At least `wanted` floats, uninitialized; valid until the next call. */
  float *reserve(int64_t wanted) {
    if (size < wanted) grow(wanted);
    return memory.get();
  }

 private:
  static constexpr size_t large = 2 << 20;

  void grow(int64_t wanted) {
    const size_t page = wanted * sizeof(float) < large ? 64 : large, bytes = (wanted * sizeof(float) + page - 1) / page * page;
    size = 0, memory.reset(), memory.reset(static_cast<float *>(std::aligned_alloc(page, bytes)));
    if (!memory) throw std::bad_alloc();
#if defined(__linux__)
    if (page == large) madvise(memory.get(), bytes, MADV_HUGEPAGE);
#endif
    size = wanted;
  }

  std::unique_ptr<float, void (*)(void *)> memory{nullptr, std::free};
  int64_t size = 0;
};

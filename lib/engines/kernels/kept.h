// Memory for what is in between.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#if defined(__linux__)
#include <sys/mman.h>
#endif

/**
 * Memory that lives on between calls, for to get it anew from the system costs as much as a tenth of a product. Where it is much, it
 * lies in large pages if the system has them: of small ones a processor remembers too few.
 */
class Kept {
 public:
  float *of(int64_t wanted) {
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

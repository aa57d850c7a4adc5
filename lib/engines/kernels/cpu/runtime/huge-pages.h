// Huge pages of the operating system.
#pragma once
#include <cstddef>
#include <cstdint>
#if defined(__linux__)
#include <sys/mman.h>
#endif

constexpr size_t hugePage = 2 << 20;

/** Requests huge pages for all whole ones of a range of memory, before it is first written: fewer page faults and TLB misses. */
inline void useHugePages([[maybe_unused]] void *data, [[maybe_unused]] size_t bytes) {
#if defined(__linux__)
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + hugePage - 1) / hugePage * hugePage;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) / hugePage * hugePage;
  if (begin < end) madvise(reinterpret_cast<void *>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

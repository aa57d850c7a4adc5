#include "pool.h"
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <thread>

namespace {
inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/**
 * The caller opens a loop, takes pieces of it like everyone else, closes it when none is left and waits for those who joined.
 * Who wakes too late finds it closed: no one waits for a sleeper.
 */
class Pool {
 public:
  explicit Pool(int workers) {
    for (int i = 0; i < workers; i++) std::thread([this] { serve(); }).detach();
  }

  void run(int64_t size, int64_t piece, const std::function<void(int64_t, int64_t)> &loop) {
    std::lock_guard<std::mutex> alone(callers); // several Node threads may share the library
    body = &loop, n = size, grain = piece;
    next.store(0, std::memory_order_relaxed);
    state.fetch_or(open);
    if (sleepers.load() > 0) {
      std::lock_guard<std::mutex> lock(sleep);
      wake.notify_all();
    }
    takePieces();
    state.fetch_and(~open);
    for (int spins = 0; state.load(std::memory_order_acquire) != 0; spins++) spins < 4096 ? pause() : std::this_thread::yield();
  }

 private:
  static constexpr uint32_t open = 1u << 16; // below it: how many have joined

  void takePieces() {
    const int64_t end = n;
    for (int64_t from; (from = next.fetch_add(grain, std::memory_order_relaxed)) < end;) (*body)(from, std::min(end, from + grain));
  }

  bool join() {
    uint32_t seen = state.load();
    while (seen & open)
      if (state.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel)) return true;
    return false;
  }

  void serve() {
    for (;;) {
      // One op follows the other within a millisecond while a model runs or learns, and a sleeper takes long to wake: look out for the next
      // one a while before sleeping.
      const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(2);
      bool joined = false;
      while (!(joined = join()) && std::chrono::steady_clock::now() < until)
        for (int i = 0; i < 16; i++) pause();
      if (joined) {
        takePieces();
        state.fetch_sub(1, std::memory_order_acq_rel);
        while (next.load(std::memory_order_relaxed) >= n && (state.load() & open)) pause(); // nothing is left of this loop
        continue;
      }
      std::unique_lock<std::mutex> lock(sleep);
      sleepers++;
      wake.wait(lock, [this] { return (state.load() & open) != 0; });
      sleepers--;
    }
  }

  std::atomic<uint32_t> state{0};
  std::atomic<int> sleepers{0};
  std::atomic<int64_t> next{0};
  std::atomic<int64_t> n{0}, grain{1};
  const std::function<void(int64_t, int64_t)> *body = nullptr;
  std::mutex callers, sleep;
  std::condition_variable wake;
};
} // namespace

int threads() {
  static const int count = [] {
    const char *asked = std::getenv("TF_NUM_INTRAOP_THREADS");
    const int given = asked ? std::atoi(asked) : 0;
    return given > 0 ? given : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  }();
  return count;
}

void parallel(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)> &body) {
  if (n <= 0) return;
  if (threads() == 1 || n <= grain) return body(0, n);
  static Pool *pool = new Pool(threads() - 1); // never destroyed: its threads run until the process ends
  pool->run(n, std::max<int64_t>(1, grain), body);
}

#include "runtime/thread-pool.h"
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace {
inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/** Consecutive pieces of a loop: one thread takes them in order, so its memory accesses are sequential. */
struct alignas(64) Share {
  std::atomic<int64_t> next{0};
  int64_t end = 0;
};

/**
 * The calling thread opens a loop, takes pieces like the workers, closes the loop when no piece is left, and waits for the workers that
 * joined. A worker that wakes too late finds the loop closed, so no thread waits for sleeping workers. Each thread starts with its own share
 * of the pieces and then helps with the shares of the others.
 */
class Pool {
 public:
  explicit Pool(int workers) : shares(workers + 1) {
    for (int i = 1; i <= workers; i++) std::thread([this, i] { serve(i); }).detach();
  }

  void run(int64_t size, int64_t piece, const std::function<void(int64_t, int64_t)> &loop) {
    std::lock_guard<std::mutex> alone(callers); // several Node.js worker threads may share the library
    body = &loop, n = size, grain = piece;
    const int64_t pieces = (size + piece - 1) / piece, count = shares.size();
    for (int64_t i = 0; i < count; i++) shares[i].next.store(pieces * i / count), shares[i].end = pieces * (i + 1) / count;
    state.fetch_or(open);
    if (sleepers.load() > 0) {
      std::lock_guard<std::mutex> lock(sleep);
      wake.notify_all();
    }
    takePieces(0);
    state.fetch_and(~open);
    for (int spins = 0; state.load(std::memory_order_acquire) != 0; spins++) spins < 4096 ? pause() : std::this_thread::yield();
  }

 private:
  static constexpr uint32_t open = 1u << 16; // bits below: number of workers that joined

  void takePieces(size_t self) {
    for (size_t i = 0; i < shares.size(); i++) {
      Share &share = shares[(self + i) % shares.size()];
      for (int64_t piece; (piece = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;)
        (*body)(piece * grain, std::min(n, (piece + 1) * grain));
    }
  }

  bool join() {
    uint32_t seen = state.load();
    while (seen & open)
      if (state.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel)) return true;
    return false;
  }

  void serve(int self) {
    for (;;) {
      // While a model runs, operators follow each other within a millisecond, and waking a thread is slow: spin for 2 ms before sleeping.
      const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(2);
      bool joined = false;
      while (!joined && std::chrono::steady_clock::now() < until)
        for (int i = 0; i < 16 && !(joined = join()); i++) pause(); // 40 ns each on recent Intel processors
      if (joined) {
        takePieces(self);
        state.fetch_sub(1, std::memory_order_acq_rel);
        while (state.load() & open) pause(); // no piece of this loop is left
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
  std::vector<Share> shares; // index 0: the calling thread
  int64_t n = 0, grain = 1;
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
  static Pool *pool = new Pool(threads() - 1); // never destroyed: its threads run until the process exits
  pool->run(n, std::max<int64_t>(1, grain), body);
}

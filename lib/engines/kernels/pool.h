// A few threads that share one loop at a time.
#pragma once
#include <cstdint>
#include <functional>

/** Threads in all, the caller's included: `TF_NUM_INTRAOP_THREADS`, else the processors at hand. */
int threads();

/**
 * `body(from, to)` over [0, n) in pieces of `grain`, on all threads; returns when all is done. A loop of one piece stays on the
 * caller's thread: below some 20 µs of work a second thread costs more than it brings.
 */
void parallel(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)> &body);

// A thread pool that runs one parallel loop at a time.
#pragma once
#include <cstdint>
#include <functional>

/** Number of threads, including the calling thread: `TF_NUM_INTRAOP_THREADS`, else the number of processors. */
int threads();

/**
 * Runs `body(from, to)` over [0, n) in pieces of `grain` on all threads, and returns when all pieces are done. A loop of one piece runs on
 * the calling thread: below about 20 µs of work a second thread costs more than it gains.
 */
void parallel(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)> &body);

// What an op is told beside its tensors, left in memory by the JavaScript that runs it a moment later, on the same thread. As attributes
// such numbers would cost more than a small product does, and TensorFlow would keep a kernel for every value that it ever met.
#pragma once

constexpr int mostNumbers = 1 << 15; // of a decoder of some 300 layers
/** Of the calling thread; null where the library was not loaded on it. */
extern thread_local double *numbers;

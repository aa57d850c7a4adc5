// The parameters of an operator travel in memory that JavaScript shares with the library: it writes them, and runs the operator on the same
// thread. As attributes of the TensorFlow operator they would cost more than a small matrix product, and TensorFlow would cache a kernel
// for each value.
#pragma once

constexpr int maxParameters = 1 << 15; // enough for a decoder of about 300 layers
constexpr int numSettings = 7;         // follow the parameters, see kernel-settings.h

/** The parameters of the calling thread; null if the library was not loaded on this thread. */
extern thread_local double *parameterBuffer;

// Runs threads for the engines, in code that is compiled once, without any of their instruction sets.

#pragma once

namespace wavegen {

constexpr int kMaxThreads = 256;

// Calls work(context, i) for i in [0, threads), each on its own thread (0 on the caller's), and waits for all.
void RunThreads(int threads, void (*work)(const void* context, int thread), const void* context);

}  // namespace wavegen

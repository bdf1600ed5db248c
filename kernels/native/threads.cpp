#include "threads.h"

#include <system_error>
#include <thread>
#include <vector>

namespace wavegen {

void RunThreads(int threads, void (*work)(const void* context, int thread), const void* context) {
  std::vector<std::thread> others;
  others.reserve(threads - 1);
  int started = 1;
  try {
    for (; started < threads; ++started) others.emplace_back(work, context, started);
  } catch (const std::system_error&) {
    // Where the system gives no more threads, the caller's runs their share.
    for (int i = started; i < threads; ++i) work(context, i);
  }
  work(context, 0);
  for (std::thread& other : others) other.join();
}

}  // namespace wavegen

// Defines the WaveNet sampler for one instruction set; one source file per set includes it and defines WAVEGEN_ENGINE.
// A set that differs from another in its products of bytes alone defines WAVEGEN_INT8_ONLY, and has no other products.

#pragma once

#include "peaks.h"
#include "streams.h"
#include "threads.h"

namespace {

template <class Weight>
Outcome GenerateWith(const Call& call, int threads) {
  const int most = (call.batch + threads - 1) / threads;
  const Packed<Weight> packed(call.network, most);
  if (!packed.ok()) return Outcome::kNoMemory;
  if (!packed.Finite()) return Outcome::kNotFinite;
  bool ok[wavegen::kMaxThreads];
  const auto run = [&](int thread) {
    const int first = static_cast<int>(static_cast<long>(call.batch) * thread / threads);
    const int end = static_cast<int>(static_cast<long>(call.batch) * (thread + 1) / threads);
    Streams<Weight> streams(call, packed, first, end - first);
    ok[thread] = streams.ok();
    if (streams.ok()) streams.Run();
  };
  wavegen::RunThreads(
      threads, [](const void* work, int thread) { (*static_cast<const decltype(run)*>(work))(thread); }, &run);
  for (int thread = 0; thread < threads; ++thread) {
    if (!ok[thread]) return Outcome::kNoMemory;
  }
  return Outcome::kDone;
}

}  // namespace

namespace wavegen::WAVEGEN_ENGINE {

Outcome GenerateInt8(const Call& call, int threads) { return GenerateWith<Int8>(call, threads); }

#if !defined(WAVEGEN_INT8_ONLY)
Outcome Generate(const Call& call, bool bfloat16, int threads) {
  return bfloat16 ? GenerateWith<BFloat16>(call, threads) : GenerateWith<float>(call, threads);
}

Peaks MeasurePeaks(long bytes) { return {ArithmeticPeak(), ReadPeak(bytes)}; }
#endif

}  // namespace wavegen::WAVEGEN_ENGINE

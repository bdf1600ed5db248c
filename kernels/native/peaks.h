// Measures what one core can do at most, as a scale for engines: multiply-adds on registers, and reads in order.

#pragma once

#include <stdlib.h>
#include <time.h>

#include "vectors.h"

namespace {

inline double Seconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Returns the best rate of 20 rounds, in operations per second.
template <class Work>
double BestRate(double operations, Work work) {
  double best = 0;
  for (int round = 0; round < 20; ++round) {
    const double start = Seconds();
    work();
    const double rate = operations / (Seconds() - start);
    best = rate > best ? rate : best;
  }
  return best;
}

// Returns floating-point operations per second; a fused multiply-add counts as two.
inline double ArithmeticPeak() {
  constexpr long kTurns = 200000;
  Floats sum[kAccumulators] = {};
  volatile float sink;
  const Floats factor = Splat(0.999f), term = Splat(0.001f);
  const double rate = BestRate(2.0 * kTurns * kAccumulators * kLanes, [&] {
    Floats own[kAccumulators];
#pragma GCC unroll 16
    for (int i = 0; i < kAccumulators; ++i) own[i] = sum[i];
    for (long turn = 0; turn < kTurns; ++turn) {
#pragma GCC unroll 16
      for (int i = 0; i < kAccumulators; ++i) own[i] = own[i] * factor + term;
    }
#pragma GCC unroll 16
    for (int i = 0; i < kAccumulators; ++i) sum[i] = own[i];
  });
  for (const Floats& s : sum) sink = s[0];
  (void)sink;
  return rate;
}

// Returns the bytes per second of reading so many bytes repeatedly, each vector into a multiply-add; 0 without memory.
inline double ReadPeak(long bytes) {
  constexpr long kPage = 1 << 21;
  const long vectors = bytes / (8 * 4 * kLanes) * 8;
  float* const data = static_cast<float*>(aligned_alloc(kPage, (bytes + kPage - 1) / kPage * kPage));
  if (data == nullptr || vectors == 0) {
    free(data);
    return 0;
  }
  memset(data, 0, bytes);
  const long turns = 1 + (1l << 24) / bytes;
  volatile float sink;
  const double rate = BestRate(static_cast<double>(turns) * static_cast<double>(vectors) * 4 * kLanes, [&] {
    Floats sum[8] = {};
    for (long turn = 0; turn < turns; ++turn) {
      for (long v = 0; v < vectors; v += 8) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) sum[i] += LoadFloats(data + (v + i) * kLanes) * 0.5f;
      }
    }
    for (const Floats& s : sum) sink = s[0];
  });
  (void)sink;
  free(data);
  return rate;
}

}  // namespace

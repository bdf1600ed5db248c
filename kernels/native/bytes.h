// Rounds rows of floats to bytes, and multiplies bytes: four values of x with four rows of a matrix, in every lane.
//
// A row is x = step * byte, where the step is the largest magnitude of the row over 127: so are the rows of activations,
// each with a step of its own, and the columns of weights. Sums of products are exact in 32 bits, whatever the
// instruction set and the order; what surrounds them is float32.

#pragma once

#include "vectors.h"

#if defined(__x86_64__)
#include <immintrin.h>
#else
#include <math.h>
#endif

namespace {

// The VNNI instructions multiply unsigned bytes of x with signed ones of W. With them x is stored with this added, and
// its product with W's columns is taken off again.
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
constexpr int kByteOffset = 128;
#else
constexpr int kByteOffset = 0;
#endif

constexpr float kLargestByte = 127;

// How a row is rounded: a value is step * byte, and a byte is the rounded value * inverse.
struct Grid {
  float step, inverse;
};

// Returns the grid on which the largest magnitude is 127. Rows whose reciprocal could overflow are rounded to zero.
inline Grid GridFor(float largest) {
  constexpr float kLeast = 1e-30f;
  if (largest < kLeast) return {0, 0};
  return {largest / kLargestByte, kLargestByte / largest};
}

// Rounds to the nearest whole number, halves to even. A conversion and not the addition of a large number, which the
// compiler would contract with the product before it.
inline Ints RoundToInts(Floats x) {
#if defined(__AVX512F__)
  return (Ints)_mm512_cvtps_epi32((__m512)x);
#elif defined(__AVX2__)
  return (Ints)_mm256_cvtps_epi32((__m256)x);
#elif defined(__x86_64__)
  return (Ints)_mm_cvtps_epi32((__m128)x);
#else
  x = Max(Min(x, Splat(128.0f)), Splat(-128.0f));  // NaN becomes a number, as no conversion of it is defined
  Ints rounded;
  for (int i = 0; i < kLanes; ++i) rounded[i] = static_cast<std::int32_t>(nearbyintf(x[i]));
  return rounded;
#endif
}

// Returns the largest of all lanes: of four at a time, then of these.
inline float Largest(Floats x) {
  typedef float Four __attribute__((vector_size(16)));
  float lanes[kLanes];
  Store(lanes, x);
  Four most = Load<Four>(lanes);
#pragma GCC unroll 4
  for (int i = 4; i < kLanes; i += 4) {
    const Four other = Load<Four>(lanes + i);
    most = most > other ? most : other;
  }
  const float a = most[0] > most[1] ? most[0] : most[1], b = most[2] > most[3] ? most[2] : most[3];
  return a > b ? a : b;
}

// Rounds `depth` values, which zeros follow to a whole vector; returns their step.
inline float RoundRow(const float* x, int depth, Int8* bytes) {
  typedef std::int8_t Narrow __attribute__((vector_size(kLanes)));
  Floats most = {};
  for (int i = 0; i < depth; i += kLanes) {
    const Floats v = LoadFloats(x + i);
    most = Max(most, Max(v, -v));
  }
  const Grid grid = GridFor(Largest(most));
  for (int i = 0; i < depth; i += kLanes) {
    const Ints rounded = RoundToInts(LoadFloats(x + i) * grid.inverse);
    Store(bytes + i, __builtin_convertvector(rounded + kByteOffset, Narrow));
  }
  return grid.step;
}

// Adds the products of a lane's four bytes of x and of W.
inline Ints AddProducts(Ints sum, Ints x, Ints w) {
#if defined(__AVX512VNNI__)
  return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)x, (__m512i)w);
#elif defined(__AVXVNNI__)
  return (Ints)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)x, (__m256i)w);
#elif defined(__AVX512BW__)
  // Two products of unsigned bytes and signed ones are added in 16 bits, where 2 * 128 * 127 fits but 2 * 255 * 127
  // does not: so the magnitudes of x are multiplied, and its signs are given to W.
  const __m512i signs = _mm512_mask_sub_epi8((__m512i)w, _mm512_movepi8_mask((__m512i)x), __m512i{}, (__m512i)w);
  const __m512i pairs = _mm512_maddubs_epi16(_mm512_abs_epi8((__m512i)x), signs);
  return sum + (Ints)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
#elif defined(__AVX2__)
  const __m256i signs = _mm256_sign_epi8((__m256i)w, (__m256i)x);
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8((__m256i)x), signs);
  return sum + (Ints)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#else
  // The bytes of even and of odd rows, as 16 bits; the sum of two products fits into them too.
  typedef std::int16_t Shorts __attribute__((vector_size(4 * kLanes)));
  const Shorts pairs =
      (((Shorts)x << 8) >> 8) * (((Shorts)w << 8) >> 8) + ((Shorts)x >> 8) * ((Shorts)w >> 8);
  return sum + (((Ints)pairs << 16) >> 16) + ((Ints)pairs >> 16);
#endif
}

}  // namespace

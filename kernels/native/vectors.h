// Defines vectors of floats as wide as the instruction set that this file is compiled for, by the vector extension that
// GCC and Clang share: arithmetic on them is written with operators, and one source serves AVX-512, AVX2, SSE and NEON.
//
// Everything here has internal linkage. Each instruction set compiles its own copy, and the linker must never offer one
// set's copy to another.

#pragma once

#include <cstdint>
#include <cstring>

namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
constexpr int kAccumulators = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
constexpr int kAccumulators = 12;
#else
constexpr int kLanes = 4;
constexpr int kAccumulators = 12;
#endif

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef std::uint32_t Words __attribute__((vector_size(4 * kLanes)));
typedef std::int32_t Ints __attribute__((vector_size(4 * kLanes)));

inline int VectorsFor(int floats) { return (floats + kLanes - 1) / kLanes; }
inline int Padded(int floats) { return VectorsFor(floats) * kLanes; }

inline Floats Splat(float x) { return x - Floats{}; }

template <class Vector, class Element>
inline Vector Load(const Element* from) {
  Vector v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

inline Floats LoadFloats(const float* from) { return Load<Floats>(from); }

template <class Vector, class Element>
inline void Store(Element* to, Vector v) {
  std::memcpy(to, &v, sizeof v);
}

inline Floats Max(Floats a, Floats b) { return a > b ? a : b; }
inline Floats Min(Floats a, Floats b) { return a < b ? a : b; }

// Returns e^x within 2 units in the last place; x is clipped to [-87, 88], where the result is a normal number. The
// polynomial on [-ln 2 / 2, ln 2 / 2] is that of Cephes; adding 1.5 * 2^23 rounds to the nearest whole number.
inline Floats Exp(Floats x) {
  const Floats kMagic = Splat(12582912.0f);
  x = Max(Min(x, Splat(88.0f)), Splat(-87.0f));
  const Floats shifted = x * 1.44269504f + kMagic;
  const Floats n = shifted - kMagic;
  const Floats r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 0.5f;
  p = p * (r * r) + (r + 1.0f);
  return p * (Floats)(((Words)shifted << 23) + 0x3f800000u);
}

// Returns tanh(a) sigmoid(g) by one division: (1 - e^-2a) / ((1 + e^-2a) (1 + e^-g)).
inline Floats GatedActivation(Floats a, Floats g) {
  const Floats u = Exp(Max(Min(a, Splat(10.0f)), Splat(-10.0f)) * -2.0f);
  const Floats w = Exp(-Max(g, Splat(-40.0f)));
  return (1.0f - u) / ((1.0f + u) * (1.0f + w));
}

// bfloat16 is the upper half of a float32.
struct BFloat16 {
  std::uint16_t bits;
};

// A signed byte, a whole number of steps of the row or column that it is in: see bytes.h.
struct Int8 {
  std::int8_t value;
};

inline float ToFloat(float x) { return x; }

inline float ToFloat(BFloat16 x) {
  const std::uint32_t word = static_cast<std::uint32_t>(x.bits) << 16;
  float y;
  std::memcpy(&y, &word, sizeof y);
  return y;
}

// Copies n values, rounded to the nearest, halves to even, where the target is narrower.
inline void Convert(const float* from, int n, float* to) { std::memcpy(to, from, n * sizeof(float)); }

inline void Convert(const BFloat16* from, int n, float* to) {
  for (int i = 0; i < n; ++i) to[i] = ToFloat(from[i]);
}

inline void Convert(const float* from, int n, BFloat16* to) {
  for (int i = 0; i < n; ++i) {
    std::uint32_t word;
    std::memcpy(&word, from + i, sizeof word);
    to[i].bits = static_cast<std::uint16_t>((word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
  }
}

inline void Add(const float* a, const float* b, int padded, float* sum) {
  for (int i = 0; i < padded; i += kLanes) Store(sum + i, LoadFloats(a + i) + LoadFloats(b + i));
}

inline void Relu(float* x, int padded) {
  for (int i = 0; i < padded; i += kLanes) Store(x + i, Max(LoadFloats(x + i), Splat(0.0f)));
}

}  // namespace

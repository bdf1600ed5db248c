// Multiplies 16 rows by a matrix on the tile unit of newer x86 processors (AMX), from bfloat16 factors to float32 sums.
//
// A tile is 16 rows of 64 bytes: 16 x 16 sums, 16 x 32 values of x, or 16 pairs of rows of a weight panel, which lie in
// memory as the unit reads them, with two bfloat16 of consecutive rows in one word (see matrix.h).
//
// WAVEGEN_EMULATE_TILES computes the same with plain loops, so that what is built around the unit can be tested on
// machines without one.

#pragma once

#include <utility>

#include "vectors.h"

namespace {

constexpr int kTileRows = 16;
constexpr int kTileDepth = 32;   // values of x, or rows of W
constexpr int kTileVectors = 4;  // tiles of sums, the widest panel

#if defined(WAVEGEN_TILES)
constexpr bool kTiles = true;
#else
constexpr bool kTiles = false;
#endif

#if defined(WAVEGEN_TILES) && !defined(WAVEGEN_EMULATE_TILES)

// Configures all eight tiles at their full size. Every thread must do so before it multiplies, and release them later.
class TileUnit {
 public:
  TileUnit() {
    struct {
      std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
      std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } sizes;
    asm volatile("ldtilecfg %0" : : "m"(sizes));
  }
  ~TileUnit() { asm volatile("tilerelease"); }
  TileUnit(const TileUnit&) = delete;
  TileUnit& operator=(const TileUnit&) = delete;
};

template <int kTile>
inline void LoadTile(const void* from, long row_bytes) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(row_bytes), "i"(kTile) : "memory");
}

template <int kTile>
inline void StoreTile(void* to, long row_bytes) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(row_bytes), "i"(kTile) : "memory");
}

template <int kSum, int kRows, int kPairs>
inline void MultiplyAddTile() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kRows), "i"(kPairs));
}

#elif defined(WAVEGEN_TILES)

thread_local char tiles[8][kTileRows][64];

struct TileUnit {
  TileUnit() { std::memset(tiles, 0, sizeof tiles); }
  ~TileUnit() { std::memset(tiles, 0xff, sizeof tiles); }
};

template <int kTile>
inline void LoadTile(const void* from, long row_bytes) {
  for (int r = 0; r < kTileRows; ++r) std::memcpy(tiles[kTile][r], static_cast<const char*>(from) + r * row_bytes, 64);
}

template <int kTile>
inline void StoreTile(void* to, long row_bytes) {
  for (int r = 0; r < kTileRows; ++r) std::memcpy(static_cast<char*>(to) + r * row_bytes, tiles[kTile][r], 64);
}

template <int kSum, int kRows, int kPairs>
inline void MultiplyAddTile() {
  for (int r = 0; r < kTileRows; ++r) {
    float sums[16];
    std::memcpy(sums, tiles[kSum][r], 64);
    for (int k = 0; k < kTileDepth / 2; ++k) {
      BFloat16 x[2], pairs[32];
      std::memcpy(x, tiles[kRows][r] + 4 * k, sizeof x);
      std::memcpy(pairs, tiles[kPairs][k], sizeof pairs);
      for (int c = 0; c < 16; ++c) {
        sums[c] += ToFloat(x[0]) * ToFloat(pairs[2 * c]) + ToFloat(x[1]) * ToFloat(pairs[2 * c + 1]);
      }
    }
    std::memcpy(tiles[kSum][r], sums, 64);
  }
}

#else

struct TileUnit {};

#endif

#if defined(WAVEGEN_TILES)

// y += x W for 16 rows and one panel of kVectors vectors; `depth` is a multiple of kTileDepth.
template <int... kVectors>
void MultiplyTiles(std::integer_sequence<int, kVectors...>, const BFloat16* panel, int depth, const BFloat16* x,
                   long x_stride, float* y, long y_stride) {
  constexpr int kX = 6, kPairs = 7;
  constexpr long kPanelBytes = 64 * sizeof...(kVectors);
  (LoadTile<kVectors>(y + kVectors * kLanes, 4 * y_stride), ...);
  for (int k = 0; k < depth; k += kTileDepth) {
    LoadTile<kX>(x + k, 2 * x_stride);
    const auto multiply = [&](auto vector) {
      LoadTile<kPairs>(panel + 2 * vector * kLanes, kPanelBytes);
      MultiplyAddTile<vector, kX, kPairs>();
    };
    (multiply(std::integral_constant<int, kVectors>{}), ...);
    panel += kTileDepth * sizeof...(kVectors) * kLanes;
  }
  (StoreTile<kVectors>(y + kVectors * kLanes, 4 * y_stride), ...);
}

using TileProduct = void (*)(const BFloat16*, int, const BFloat16*, long, float*, long);

inline TileProduct TileProductFor(int vectors) {
  constexpr auto product = [](auto widths) {
    return [](const BFloat16* panel, int depth, const BFloat16* x, long x_stride, float* y, long y_stride) {
      MultiplyTiles(decltype(widths){}, panel, depth, x, x_stride, y, y_stride);
    };
  };
  constexpr TileProduct kProducts[kTileVectors] = {
      product(std::make_integer_sequence<int, 1>{}), product(std::make_integer_sequence<int, 2>{}),
      product(std::make_integer_sequence<int, 3>{}), product(std::make_integer_sequence<int, 4>{})};
  return kProducts[vectors - 1];
}

#endif

}  // namespace

// Multiplies matrices that stay where they are by the few columns that pass.
//
// A product is weights [M, K] times values [K, 8 streams]. Tensor cores take it in tiles of 16 rows and steps of 16
// columns; a lane holds four registers of each. So a matrix is stored as "fragments" [tile][step][lane], 16 bytes each,
// which weights.py makes. Values lie in shared memory as rows of 8 streams, one row per channel.

#pragma once

namespace wavenet {

// The matrices of one kind that a block multiplies with, one per layer. Those of the first kInRegisters layers are in
// registers, the next ones, up to kOnChip in all, in shared memory; the others are read from global memory whenever they
// are used, where the second-level cache has them. Warps take tiles in turns, and read no tile of another warp.
template <int kCount, int kInRegisters, int kOnChip, int kRows, int kColumns>
class Matrices {
 public:
  static constexpr int kTiles = kRows / 16, kSteps = kColumns / 16;
  static constexpr int kTurns = (kTiles + kWarps - 1) / kWarps;
  static constexpr int kFragments = kTiles * kSteps * 32;
  static constexpr int kSharedFragments = (kOnChip - kInRegisters) * kFragments;

  DEVICE bool Has(int turn) const { return TileOf(turn) < kTiles; }
  DEVICE int TileOf(int turn) const { return warp_ + kWarps * turn; }

  // Takes `count` matrices, one after another in global memory, with room for kSharedFragments.
  DEVICE void Take(const uint4* from, int count, uint4* shared) {
    warp_ = ThreadNumber() / 32, lane_ = ThreadNumber() % 32;
    global_ = from, shared_ = shared;
    UNROLL
    for (int i = 0; i < kOnChip; ++i) {
      UNROLL
      for (int turn = 0; turn < kTurns; ++turn) {
        if (!Has(turn)) break;
        UNROLL
        for (int step = 0; step < kSteps; ++step) {
          // A stage that has fewer layers than others repeats its last one, and does not use it.
          const uint4 fragment = from[(i < count ? i : count - 1) * kFragments + Place(turn, step)];
          if (i < kInRegisters) {
            own_[i][turn][step] = fragment;
          } else {
            shared[(i - kInRegisters) * kFragments + Place(turn, step)] = fragment;
          }
        }
      }
    }
  }

  // Adds the product of a tile of matrix i with values, as two chains so that one does not wait for the other.
  DEVICE void Multiply(int i, int turn, const uint32_t* values, float sum[4]) const {
    float odd[4] = {};
    UNROLL
    for (int step = 0; step < kSteps; ++step) {
      MultiplyTile(step % 2 ? odd : sum, At(i, turn, step), values[2 * step], values[2 * step + 1]);
    }
    UNROLL
    for (int n = 0; n < 4; ++n) sum[n] += odd[n];
  }

 private:
  DEVICE int Place(int turn, int step) const { return (TileOf(turn) * kSteps + step) * 32 + lane_; }
  DEVICE uint4 At(int i, int turn, int step) const {
    if (i < kInRegisters) return own_[i][turn][step];
    if (i < kOnChip) return shared_[(i - kInRegisters) * kFragments + Place(turn, step)];
    return global_[i * kFragments + Place(turn, step)];
  }

  uint4 own_[Most(kInRegisters, 1)][kTurns][kSteps];
  const uint4* shared_;
  const uint4* global_;
  int warp_, lane_;
};

// Loads values from shared memory as the second factor of a product: two registers per step of 16 channels.
template <int kChannels>
DEVICE void LoadValues(uint32_t* values, Address rows) {
  UNROLL
  for (int i = 0; i < kChannels / 32; ++i) {
    LoadTransposed(values + 4 * i, rows + (32 * i + ThreadNumber() % 32) * kStreams * sizeof(BFloat16));
  }
}

// A lane's accumulators of a tile are two rows, `row` and row + 8, by two streams, `column` and column + 1.
DEVICE int AccumulatorRow() { return ThreadNumber() % 32 / 4; }
DEVICE int AccumulatorColumn() { return ThreadNumber() % 4 * 2; }

}  // namespace wavenet

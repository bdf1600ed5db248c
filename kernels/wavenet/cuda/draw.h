// Draws a token from one stream's outputs by one warp, with the random numbers that kernels/draw.py specifies.

#pragma once

namespace wavenet {

// Turns the counter (position, row) into two numbers in (0, 1) by Threefry-2x32 with 20 rounds (Salmon et al. 2011).
struct Uniforms {
  float first, second;

  DEVICE Uniforms(uint32_t key0, uint32_t key1, uint32_t position, uint32_t row) {
    const uint32_t schedule[3] = {key0, key1, key0 ^ key1 ^ 0x1bd11bdau};
    const int rotations[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
    uint32_t x = position + schedule[0], y = row + schedule[1];
    UNROLL
    for (int group = 0; group < 5; ++group) {
      UNROLL
      for (int n = 0; n < 4; ++n) {
        const int rotation = rotations[group % 2][n];
        x += y;
        y = x ^ (y << rotation | y >> (32 - rotation));
      }
      x += schedule[(group + 1) % 3];
      y += schedule[(group + 2) % 3] + group + 1;
    }
    first = (static_cast<float>(x >> 9) + 0.5f) * 0x1p-23f;
    second = (static_cast<float>(y >> 9) + 0.5f) * 0x1p-23f;
  }
};

struct Options {
  float temperature, top_p;
  int top_k;
};

// The mass exp((x - largest) / temperature) of kCount levels; a lane holds kOwn neighbouring ones.
template <int kCount>
class Masses {
 public:
  // Draws the first level at which the cumulative sum exceeds uniform times the total; temperature 0 takes the likeliest.
  static DEVICE int Draw(const float* logits, const Options& options, float uniform) {
    Masses masses(logits, options);
    if (!(options.temperature > 0)) return masses.Likeliest();
    if (options.top_k > 0 || options.top_p < 1) masses.KeepLikely(options);
    return masses.Choose(uniform);
  }

 private:
  static constexpr int kOwn = (kCount + 31) / 32;
  static constexpr float kLowest = -3e38f;

  DEVICE Masses(const float* logits, const Options& options) : first_(ThreadNumber() % 32 * kOwn) {
    float largest = kLowest;
    UNROLL
    for (int n = 0; n < kOwn; ++n) {
      mass_[n] = first_ + n < kCount ? logits[first_ + n] : kLowest;
      largest = fmaxf(largest, mass_[n]);
    }
    UNROLL
    for (int mask = 16; mask > 0; mask /= 2) largest = fmaxf(largest, ShuffleXor(largest, mask));
    // At temperature 0 the largest alone keeps the mass 1, however close another comes.
    const float sharpness = options.temperature > 0 ? 1.44269504f / options.temperature : 0x1p20f;
    UNROLL
    for (int n = 0; n < kOwn; ++n) mass_[n] = Exp2((mass_[n] - largest) * sharpness);
  }

  DEVICE int Likeliest() const {
    uint32_t best = kCount;
    UNROLL
    for (int n = kOwn - 1; n >= 0; --n) best = mass_[n] == 1.0f ? first_ + n : best;
    return static_cast<int>(WarpLeast(best));
  }

  DEVICE int Choose(float uniform) const {
    float total = 0;
    UNROLL
    for (int n = 0; n < kOwn; ++n) total += mass_[n];
    float through = total;  // the sum through this lane
    UNROLL
    for (int distance = 1; distance < 32; distance *= 2) {
      const float other = ShuffleUp(through, distance);
      through += ThreadNumber() % 32 >= distance ? other : 0.0f;
    }
    const float target = uniform * Shuffle(through, 31);
    const float before = ShuffleUp(through, 1);
    float sum = ThreadNumber() % 32 > 0 ? before : 0.0f;
    // Sums of different lanes round differently, so that a level without mass must be passed over by name.
    uint32_t chosen = kCount, last = 0;
    UNROLL
    for (int n = 0; n < kOwn; ++n) {
      sum += mass_[n];
      if (mass_[n] > 0) {
        last = first_ + n;
        if (sum > target && chosen == kCount) chosen = first_ + n;
      }
    }
    chosen = WarpLeast(chosen);
    last = WarpMost(last);
    return static_cast<int>(chosen < kCount ? chosen : last);
  }

  // Sets to zero all but the top_k largest (0 = all) and, of those, the fewest that hold a share top_p of their sum.
  // Values as large as the last one kept are kept too. Shares are counted in units of 2^-22 of the largest mass.
  DEVICE void KeepLikely(const Options& options) {
    uint32_t share[kOwn], total = 0, least = 0;
    UNROLL
    for (int n = 0; n < kOwn; ++n) {
      share[n] = static_cast<uint32_t>(mass_[n] * 0x1p22f + 0.5f);
      total += share[n];
    }
    total = WarpSum(total);
    if (options.top_k > 0 && options.top_k < kCount) {
      const uint32_t one[1] = {1};
      least = LeastKept<1>(one, options.top_k);
      uint32_t larger = 0, sum = 0, smallest = 1u << 22;
      UNROLL
      for (int n = 0; n < kOwn; ++n) {
        if (Bits(mass_[n]) > least) ++larger, sum += share[n];
        if (Bits(mass_[n]) == least) smallest = share[n];
      }
      total = WarpSum(sum) + (options.top_k - WarpSum(larger)) * WarpLeast(smallest);
    }
    if (options.top_p < 1) {
      const uint32_t enough = static_cast<uint32_t>(ceilf(options.top_p * static_cast<float>(total)));
      const uint32_t nucleus = LeastKept<kOwn>(share, enough > 0 ? enough : 1);
      least = nucleus > least ? nucleus : least;
    }
    UNROLL
    for (int n = 0; n < kOwn; ++n) {
      if (Bits(mass_[n]) < least) mass_[n] = 0;
    }
  }

  // Returns the bits of the smallest mass that is kept when those above it weigh less than `enough`. The bits of positive
  // numbers are in the numbers' order, so that their weight above a bound falls with the bound, and bits of the largest
  // bound that leaves enough above it are found one after another.
  template <int kWeights>
  DEVICE uint32_t LeastKept(const uint32_t (&weight)[kWeights], uint32_t enough) const {
    uint32_t bound = 0;
    for (uint32_t bit = 1u << 29; bit > 0; bit /= 2) {
      uint32_t above = 0;
      UNROLL
      for (int n = 0; n < kOwn; ++n) above += Bits(mass_[n]) > (bound | bit) ? weight[n % kWeights] : 0;
      if (WarpSum(above) >= enough) bound |= bit;
    }
    uint32_t least = 0xffffffffu;
    UNROLL
    for (int n = 0; n < kOwn; ++n) {
      if (Bits(mass_[n]) > bound) least = Bits(mass_[n]) < least ? Bits(mass_[n]) : least;
    }
    return WarpLeast(least);
  }

  const int first_;
  float mass_[kOwn];
};

// Converts between tokens, code values and amplitudes, as companding.py does.
DEVICE float CodeValue(int token) { return static_cast<float>(token) * (2.0f / (kLevels - 1)) - 1; }
DEVICE float Expand(float u) {
  if (kMu == 0) return u;
  return copysignf(expm1f(fabsf(u) * log1pf(static_cast<float>(kMu))) / static_cast<float>(Most(kMu, 1)), u);
}
DEVICE float Compress(float x) {
  if (kMu == 0) return x;
  return copysignf(log1pf(static_cast<float>(kMu) * fabsf(x)) / log1pf(static_cast<float>(Most(kMu, 1))), x);
}

// Draws from a mixture of logistics: a component by one number, its value by the other; see head.py. `prediction` is the
// linear prediction of the amplitude, which shifts the means.
DEVICE int DrawFromMixture(const float* outputs, const Options& options, float prediction, const Uniforms& uniform) {
  constexpr int kCount = Most(kMixtures, 1);
  Options plain = options;
  plain.top_k = 0, plain.top_p = 1;
  const int component = Masses<kCount>::Draw(outputs, plain, uniform.first);
  const float scale = expf(fmaxf(outputs[2 * kMixtures + component], -14.0f));
  float value = outputs[kMixtures + component];
  if (kPrediction > 0) value += Compress(fminf(fmaxf(prediction, -1.0f), 1.0f));
  value += options.temperature * scale * (logf(uniform.second) - log1pf(-uniform.second));
  const float level = floorf((value + 1) / 2 * (kLevels - 1) + 0.5f);
  return static_cast<int>(fminf(fmaxf(level, 0.0f), static_cast<float>(kLevels - 1)));
}

}  // namespace wavenet

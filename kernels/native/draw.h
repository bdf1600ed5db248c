// Draws one token from a network's outputs, with the random numbers that kernels/draw.py specifies.

#pragma once

#include <math.h>

#include "vectors.h"
#include "wavenet.h"

namespace {

// Turns the counter (position, row) into two numbers in (0, 1) by Threefry-2x32 with 20 rounds (Salmon et al. 2011).
inline void Uniforms(const std::uint32_t key[2], std::uint32_t position, std::uint32_t row, float uniform[2]) {
  constexpr int kRotations[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
  const std::uint32_t schedule[3] = {key[0], key[1], key[0] ^ key[1] ^ 0x1bd11bdau};
  std::uint32_t x = position + schedule[0], y = row + schedule[1];
  for (std::uint32_t group = 0; group < 5; ++group) {
    for (const int rotation : kRotations[group % 2]) {
      x += y;
      y = x ^ ((y << rotation) | (y >> (32 - rotation)));
    }
    x += schedule[(group + 1) % 3];
    y += schedule[(group + 2) % 3] + group + 1;
  }
  uniform[0] = (static_cast<float>(x >> 9) + 0.5f) * 0x1p-23f;
  uniform[1] = (static_cast<float>(y >> 9) + 0.5f) * 0x1p-23f;
}

// Returns the index of the largest, of equal ones the first.
inline int ArgMax(const float* x, int n) {
  int best = 0;
  for (int i = 1; i < n; ++i) {
    if (x[i] > x[best]) best = i;
  }
  return best;
}

constexpr int kBlock = 16;

// Returns the first level at which the cumulative sum of `mass` (blocks of 16, zeros behind the last level) exceeds
// uniform times the total. Sums of blocks find the block first, and then the level in it.
inline int ChooseIndex(const float* mass, int levels, float uniform, float* block_sums) {
  const int blocks = (levels + kBlock - 1) / kBlock;
  float total = 0;
  for (int b = 0; b < blocks; ++b) {
    const float* m = mass + b * kBlock;
    float s[4];
    for (int i = 0; i < 4; ++i) s[i] = (m[i] + m[i + 4]) + (m[i + 8] + m[i + 12]);
    block_sums[b] = (s[0] + s[1]) + (s[2] + s[3]);
    total += block_sums[b];
  }
  const float target = uniform * total;
  float below = 0;
  int b = 0;
  while (b + 1 < blocks && below + block_sums[b] <= target) below += block_sums[b++];
  // Rounding can leave the target above the last sum: then the last level that has any mass is chosen.
  int chosen = b * kBlock;
  for (int i = b * kBlock; i < levels && i < (b + 1) * kBlock; ++i) {
    if (mass[i] > 0) chosen = i;
    below += mass[i];
    if (below > target) break;
  }
  return chosen;
}

// Moves the values above, equal to and below a pivot apart, descending; returns the bounds of the equal ones.
inline void Partition(float* x, int n, float pivot, int* first_equal, int* first_below) {
  int above = 0, below = n;
  for (int i = 0; i < below;) {
    const float value = x[i];
    if (value > pivot) {
      x[i++] = x[above];
      x[above++] = value;
    } else if (value < pivot) {
      x[i] = x[--below];
      x[below] = value;
    } else {
      ++i;
    }
  }
  *first_equal = above;
  *first_below = below;
}

// Returns the smallest kept mass when the largest ones are kept until their count or their sum reaches a bound. This is
// a quickselect, which continues in one part only; it permutes `x`.
template <class Reached>
inline float Threshold(float* x, int n, Reached reached) {
  int count = 0;
  float sum = 0;
  while (n > 1) {
    const float a = x[0], b = x[n / 2], c = x[n - 1];
    const float pivot = a > b ? (b > c ? b : (a > c ? c : a)) : (a > c ? a : (b > c ? c : b));
    int first_equal, first_below;
    Partition(x, n, pivot, &first_equal, &first_below);
    float above = 0;
    for (int i = 0; i < first_equal; ++i) above += x[i];
    if (first_equal > 0 && reached(count + first_equal, sum + above)) {
      n = first_equal;
      continue;
    }
    const int equals = first_below - first_equal;
    count += first_below;
    sum += above + pivot * static_cast<float>(equals);
    if (first_below == n || reached(count, sum)) return pivot;
    x += first_below;
    n -= first_below;
  }
  return x[0];
}

// Sets to zero all but the top_k largest (0 = all) and, of those, the fewest that hold a share top_p of their sum.
// Values as large as the last one kept are kept too.
inline void KeepLikely(float* mass, int levels, int top_k, float top_p, float* scratch) {
  float least = 0;
  float kept_mass = 0;
  if (top_k > 0 && top_k < levels) {
    std::memcpy(scratch, mass, levels * sizeof(float));
    least = Threshold(scratch, levels, [top_k](int count, float) { return count >= top_k; });
    int larger = 0;
    for (int i = 0; i < levels; ++i) {
      if (mass[i] > least) {
        ++larger;
        kept_mass += mass[i];
      }
    }
    kept_mass += least * static_cast<float>(top_k - larger);
  } else {
    for (int i = 0; i < levels; ++i) kept_mass += mass[i];
  }
  if (top_p < 1) {
    std::memcpy(scratch, mass, levels * sizeof(float));
    const float bound = top_p * kept_mass;
    const float nucleus = Threshold(scratch, levels, [bound](int, float sum) { return sum >= bound; });
    if (nucleus > least) least = nucleus;
  }
  for (int i = 0; i < levels; ++i) {
    if (mass[i] < least) mass[i] = 0;
  }
}

// Draws from softmax(logits / temperature), cut to its likeliest levels. `scratch` holds twice the padded levels.
inline int DrawFromSoftmax(const float* logits, int levels, const wavegen::Draw& draw, float uniform, float* scratch) {
  if (draw.temperature <= 0) return ArgMax(logits, levels);
  float largest = logits[0];
  for (int i = 1; i < levels; ++i) largest = logits[i] > largest ? logits[i] : largest;
  // Levels are padded to whole blocks or whole vectors, whichever is longer.
  constexpr int kWhole = kBlock > kLanes ? kBlock : kLanes;
  const int padded = (levels + kWhole - 1) / kWhole * kWhole;
  float* const mass = scratch;
  float* const rest = scratch + padded;
  const float inverse = 1.0f / draw.temperature;
  int i = 0;
  for (; i + kLanes <= levels; i += kLanes) Store(mass + i, Exp((LoadFloats(logits + i) - largest) * inverse));
  if (i < padded) {
    std::memset(mass + i, 0, (padded - i) * sizeof(float));
    if (i < levels) {
      Floats last = Splat(-1e30f);
      std::memcpy(&last, logits + i, (levels - i) * sizeof(float));
      last = Exp((last - largest) * inverse);
      std::memcpy(mass + i, &last, (levels - i) * sizeof(float));
    }
  }
  if (draw.top_k > 0 || draw.top_p < 1) KeepLikely(mass, levels, draw.top_k, draw.top_p, rest);
  return ChooseIndex(mass, levels, uniform, rest);
}

// Converts an amplitude to code space: to sign(x) ln(1 + mu |x|) / ln(1 + mu), or for mu = 0 to itself.
inline float Compress(float x, int mu) {
  if (mu == 0) return x;
  const float strength = static_cast<float>(mu);
  return copysignf(log1pf(strength * fabsf(x)) / log1pf(strength), x);
}

// Draws from a mixture of logistics: a component by one number, its value by the other; see head.py.
// `prediction` is the linear prediction of the amplitude, which shifts the means.
inline int DrawFromMixture(const float* outputs, int levels, const wavegen::Head& head, const wavegen::Draw& draw,
                           float prediction, const float uniform[2], float* scratch) {
  const int m = head.mixtures;
  wavegen::Draw component_draw = draw;
  component_draw.top_k = 0;
  component_draw.top_p = 1;
  const int component = DrawFromSoftmax(outputs, m, component_draw, uniform[0], scratch);
  const float log_scale = outputs[2 * m + component];
  const float scale = expf(log_scale < -14.0f ? -14.0f : log_scale);
  float value = outputs[m + component] + draw.temperature * scale * (logf(uniform[1]) - log1pf(-uniform[1]));
  if (head.linear_prediction > 0) {
    const float clipped = prediction < -1 ? -1.0f : (prediction > 1 ? 1.0f : prediction);
    value += Compress(clipped, head.mu);
  }
  const float top = static_cast<float>(levels - 1);
  const float level = floorf((value + 1) / 2 * top + 0.5f);
  return !(level > 0) ? 0 : (level > top ? levels - 1 : static_cast<int>(level));
}

}  // namespace

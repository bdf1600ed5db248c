// Products of a few rows with a constant matrix: y += x W.
//
// W is packed once into panels of some vectors' width, each panel from the first row of W to the last, so that a product
// reads it as one stream. Every element of y is summed over the rows of W in order, one fused multiply-add each: the
// result does not depend on how rows and columns are cut into blocks, on the thread count, or (where there is a fused
// multiply-add) on the instruction set.

#pragma once

#include "vectors.h"

namespace {

// A panel's element: a float, or two bfloat16 of consecutive rows in one 32-bit word, the first in the lower half.
template <class Weight>
struct Packing;

template <>
struct Packing<float> {
  static constexpr int kDepth = 1;
};

template <>
struct Packing<BFloat16> {
  static constexpr int kDepth = 2;
};

// Adds one packed row (or pair of rows) times x to the accumulators.
template <int kRows, int kVectors>
inline void Accumulate(const float* panel, const float* x, long stride, Floats (&sum)[kRows][kVectors]) {
  Floats w[kVectors];
#pragma GCC unroll 16
  for (int v = 0; v < kVectors; ++v) w[v] = LoadFloats(panel + v * kLanes);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const float value = x[r * stride];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) sum[r][v] += value * w[v];
  }
}

template <int kRows, int kVectors>
inline void Accumulate(const BFloat16* panel, const float* x, long stride, Floats (&sum)[kRows][kVectors]) {
#pragma GCC unroll 16
  for (int v = 0; v < kVectors; ++v) {
    const Words pair = Load<Words>(panel + 2 * v * kLanes);
    const Floats first = (Floats)(pair << 16), second = (Floats)(pair & 0xffff0000u);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      sum[r][v] += x[r * stride] * first;
      sum[r][v] += x[r * stride + 1] * second;
    }
  }
}

template <class Weight, int kRows, int kVectors>
void MultiplyPanel(const Weight* panel, int depth, const float* x, long x_stride, float* y, long y_stride) {
  Floats sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) sum[r][v] = LoadFloats(y + r * y_stride + v * kLanes);
  }
  constexpr int kStep = Packing<Weight>::kDepth;
  for (int k = 0; k < depth; k += kStep) {
    Accumulate<kRows, kVectors>(panel, x + k, x_stride, sum);
    panel += kStep * kVectors * kLanes;
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) Store(y + r * y_stride + v * kLanes, sum[r][v]);
  }
}

template <class Weight>
using PanelProduct = void (*)(const Weight*, int, const float*, long, float*, long);

constexpr int kMaxRows = kAccumulators / 2;

// The product for a count of rows and vectors, where their accumulators fit the registers.
template <class Weight, int kRows, int kVectors = kAccumulators>
PanelProduct<Weight> ProductOfWidth(int vectors) {
  if constexpr (kVectors == 0) {
    return nullptr;
  } else if constexpr (kRows * kVectors > kAccumulators) {
    return ProductOfWidth<Weight, kRows, kVectors - 1>(vectors);
  } else {
    return vectors == kVectors ? MultiplyPanel<Weight, kRows, kVectors>
                               : ProductOfWidth<Weight, kRows, kVectors - 1>(vectors);
  }
}

template <class Weight, int kRows = kMaxRows>
PanelProduct<Weight> Product(int rows, int vectors) {
  if constexpr (kRows == 0) {
    return nullptr;
  } else {
    return rows == kRows ? ProductOfWidth<Weight, kRows>(vectors) : Product<Weight, kRows - 1>(rows, vectors);
  }
}

inline int DivideUp(int a, int b) { return (a + b - 1) / b; }

// A packed matrix of `depth` rows and `vectors` vectors of columns, for products with up to `rows` rows at a time.
template <class Weight>
class Matrix {
 public:
  static constexpr int kStep = Packing<Weight>::kDepth;

  Matrix() = default;
  Matrix(int depth, int columns, int rows)
      : depth_(DivideUp(depth, kStep) * kStep),
        vectors_(VectorsFor(columns)),
        panels_(DivideUp(vectors_, kAccumulators / (rows < kMaxRows ? rows : kMaxRows))) {
    widest_ = DivideUp(vectors_, panels_);
    max_rows_ = kAccumulators / widest_ < kMaxRows ? kAccumulators / widest_ : kMaxRows;
    for (int r = 1; r <= max_rows_; ++r) {
      wide_[r - 1] = Product<Weight>(r, widest_);
      narrow_[r - 1] = Product<Weight>(r, widest_ - 1);
    }
  }

  // Elements of the packed form.
  long size() const { return static_cast<long>(depth_) * vectors_ * kLanes; }
  void set_data(Weight* data) { data_ = data; }

  // Copies columns of W, whose rows lie `stride` apart, to where they are packed. What is never copied must be zero.
  void Pack(const Weight* from, long stride, int rows, int columns, int first_column) {
    for (int c = 0; c < columns;) {
      const int vector = (first_column + c) / kLanes, lane = (first_column + c) % kLanes;
      const int count = kLanes - lane < columns - c ? kLanes - lane : columns - c;
      int width;
      Weight* const panel = Panel(vector, &width);
      for (int k = 0; k < rows; ++k) {
        Weight* to = panel + static_cast<long>(k / kStep) * kStep * width * kLanes + lane * kStep + k % kStep;
        for (int i = 0; i < count; ++i) to[i * kStep] = from[k * stride + c + i];
      }
      c += count;
    }
  }

  // y[r] += x[r] W for `rows` rows. x must have `depth` values a row, up to an even count for bfloat16.
  void MultiplyAdd(const float* x, long x_stride, int rows, float* y, long y_stride) const {
    const int blocks = DivideUp(rows, max_rows_);
    const Weight* panel = data_;
    for (int p = 0; p < panels_; ++p) {
      const bool wide = p < WidePanels();
      const int vectors = wide ? widest_ : widest_ - 1;
      // Rows inside, panels outside: a panel stays in the first cache while all rows pass by.
      for (int block = 0, r = 0; block < blocks; ++block) {
        const int count = DivideUp(rows - r, blocks - block);
        (wide ? wide_ : narrow_)[count - 1](panel, depth_, x + r * x_stride, x_stride, y + r * y_stride, y_stride);
        r += count;
      }
      panel += static_cast<long>(depth_) * vectors * kLanes;
      y += vectors * kLanes;
    }
  }

 private:
  // Panels differ by at most one vector, the wider ones first.
  int WidePanels() const { return vectors_ - panels_ * (widest_ - 1); }

  // Where a vector of columns begins in its panel's first row, and the panel's width in vectors.
  Weight* Panel(int vector, int* width) const {
    const int in_wide = WidePanels() * widest_;
    *width = vector < in_wide ? widest_ : widest_ - 1;
    const int inside = vector < in_wide ? vector % widest_ : (vector - in_wide) % (widest_ - 1);
    return data_ + static_cast<long>(vector - inside) * depth_ * kLanes + inside * kStep * kLanes;
  }

  Weight* data_ = nullptr;
  int depth_ = 0, vectors_ = 0, panels_ = 0, widest_ = 0, max_rows_ = 0;
  PanelProduct<Weight> wide_[kMaxRows] = {}, narrow_[kMaxRows] = {};
};

}  // namespace

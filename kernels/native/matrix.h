// Multiplies a few rows by a constant matrix: y += x W.
//
// W is packed once into panels that are some vectors wide, each from the first row of W to the last, so that a product
// reads it as one stream. Every element of y is summed over the rows of W in order, by one fused multiply-add per row:
// the result does not depend on how rows and columns are cut into blocks, on the thread count, or (where there is a
// fused multiply-add) on the instruction set. The exception is a product of 16 rows or more with a bfloat16 matrix
// where there is a tile unit, which rounds x to bfloat16 and sums in pairs.
//
// A matrix of bytes is rounded when it is packed, each column on a grid of its own, and multiplies rows of bytes: their
// exact sum, times the steps of the row and of the column, is added to y.

#pragma once

#include <type_traits>

#include "bytes.h"
#include "tiles.h"
#include "vectors.h"

namespace {

// A panel's element is a float, or two bfloat16 or four bytes of consecutive rows in one 32-bit word, the first in its
// lowest bits. A panel of bytes begins with two words for each of its columns: the step, and minus the product of the
// column with kByteOffset, with which sums begin.
//
// Given says in which type weights come, and values leave the loop over time.
template <class Weight>
struct Packing;

template <>
struct Packing<float> {
  using Given = float;
  using Sum = Floats;
  static constexpr int kDepth = 1, kHead = 0;
};

template <>
struct Packing<BFloat16> {
  using Given = BFloat16;
  using Sum = Floats;
  static constexpr int kDepth = 2, kHead = 0;
};

template <>
struct Packing<Int8> {
  using Given = float;
  using Sum = Ints;
  static constexpr int kDepth = 4, kHead = 2 * kDepth;
};

template <class Weight>
constexpr bool kInBytes = std::is_same_v<Weight, Int8>;

// The rows of x, `stride` apart, as a product with a matrix of Weight reads them. It is passed by reference: a copy in
// memory is made of vectors that overlap the words just stored, for which the processor must wait.
template <class Weight>
struct Rows {
  const float* x;
  long stride;

  Rows Skip(int rows) const { return {x + rows * stride, stride}; }
};

template <>
struct Rows<Int8> {
  const Int8* x;
  long stride;
  const float* steps;  // of each row

  Rows Skip(int rows) const { return {x + rows * stride, stride, steps + rows}; }
};

// Fills the accumulators with what y holds, or with what sums of bytes begin with.
template <int kRows, int kVectors, class Weight>
inline void Begin(const Weight*, const float* y, long y_stride, Floats (&sum)[kRows][kVectors]) {
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) sum[r][v] = LoadFloats(y + r * y_stride + v * kLanes);
  }
}

template <int kRows, int kVectors>
inline void Begin(const Int8* panel, const float*, long, Ints (&sum)[kRows][kVectors]) {
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) sum[r][v] = Load<Ints>(panel + 4 * (kVectors + v) * kLanes);
  }
}

// Adds one packed row (or two, or four of them) times x to the accumulators.
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

template <int kRows, int kVectors>
inline void Accumulate(const Int8* panel, const Int8* x, long stride, Ints (&sum)[kRows][kVectors]) {
  Ints four[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) four[r] = Load<std::int32_t>(x + r * stride) - Ints{};
#pragma GCC unroll 16
  for (int v = 0; v < kVectors; ++v) {
    const Ints w = Load<Ints>(panel + 4 * v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) sum[r][v] = AddProducts(sum[r][v], four[r], w);
  }
}

// Writes the sums to y.
template <int kRows, int kVectors, class Weight>
inline void Finish(const Weight*, const Rows<Weight>&, const Floats (&sum)[kRows][kVectors], float* y, long y_stride) {
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) Store(y + r * y_stride + v * kLanes, sum[r][v]);
  }
}

template <int kRows, int kVectors>
inline void Finish(const Int8* panel, const Rows<Int8>& x, const Ints (&sum)[kRows][kVectors], float* y,
                   long y_stride) {
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const float step = x.steps[r];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      float* const to = y + r * y_stride + v * kLanes;
      const Floats steps = Load<Floats>(panel + 4 * v * kLanes) * step;
      Store(to, LoadFloats(to) + __builtin_convertvector(sum[r][v], Floats) * steps);
    }
  }
}

template <class Weight, int kRows, int kVectors>
void MultiplyPanel(const Weight* panel, int depth, const Rows<Weight>& rows, float* y, long y_stride) {
  constexpr int kStep = Packing<Weight>::kDepth;
  typename Packing<Weight>::Sum sum[kRows][kVectors];
  Begin(panel, y, y_stride, sum);
  const Weight* words = panel + Packing<Weight>::kHead * kVectors * kLanes;
  for (int k = 0; k < depth; k += kStep) {
    Accumulate<kRows, kVectors>(words, rows.x + k, rows.stride, sum);
    words += kStep * kVectors * kLanes;
  }
  Finish(panel, rows, sum, y, y_stride);
}

template <class Weight>
using PanelProduct = void (*)(const Weight*, int, const Rows<Weight>&, float*, long);

constexpr int kMaxRows = kAccumulators / 2;

// Returns the product for a count of rows and vectors whose accumulators fit into the registers.
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

// Holds a packed matrix of `depth` rows and `vectors` vectors of columns, for products with up to `rows` rows at once.
template <class Weight>
class Matrix {
 public:
  using Element = Weight;
  using Given = typename Packing<Weight>::Given;
  static constexpr int kStep = Packing<Weight>::kDepth, kHead = Packing<Weight>::kHead;
  static constexpr bool kOnTiles = kTiles && std::is_same_v<Weight, BFloat16>;

  Matrix() = default;
  Matrix(int depth, int columns, int rows)
      : depth_(DivideUp(depth, kStep) * kStep),
        packed_depth_(kOnTiles && rows >= kTileRows ? DivideUp(depth, kTileDepth) * kTileDepth : kHead + depth_),
        vectors_(VectorsFor(columns)) {
    const int widest = kAccumulators / (rows < kMaxRows ? rows : kMaxRows);
    panels_ = DivideUp(vectors_, kOnTiles && rows >= kTileRows ? kTileVectors : widest);
    widest_ = DivideUp(vectors_, panels_);
    max_rows_ = kAccumulators / widest_ < kMaxRows ? kAccumulators / widest_ : kMaxRows;
    for (int r = 1; r <= max_rows_; ++r) {
      wide_[r - 1] = Product<Weight>(r, widest_);
      narrow_[r - 1] = Product<Weight>(r, widest_ - 1);
    }
  }

  // Returns the number of elements of the packed form.
  long size() const { return static_cast<long>(packed_depth_) * vectors_ * kLanes; }
  int depth() const { return depth_; }
  void set_data(Weight* data) { data_ = data; }

  // Packs whole columns of W, whose rows lie `stride` apart. What is never packed must be zero. Bytes are packed in
  // whole vectors, of which the first column must be the first.
  void Pack(const Given* from, long stride, int rows, int columns, int first_column) {
    for (int c = 0; c < columns;) {
      const int vector = (first_column + c) / kLanes, lane = (first_column + c) % kLanes;
      const int count = kLanes - lane < columns - c ? kLanes - lane : columns - c;
      int width;
      Weight* const panel = Panel(vector, &width);
      if constexpr (kInBytes<Weight>) {
        PackBytes(from + c, stride, rows, count, panel, width * kLanes * kStep);
      } else {
        for (int k = 0; k < rows; ++k) {
          Weight* to = panel + static_cast<long>(k / kStep) * kStep * width * kLanes + lane * kStep + k % kStep;
          for (int i = 0; i < count; ++i) to[i * kStep] = from[k * stride + c + i];
        }
      }
      c += count;
    }
  }

  // y[r] += x[r] W for `rows` rows. x must have `depth` values per row, rounded up to whole words of the panels.
  void MultiplyAdd(Rows<Weight> x, int rows, float* y, long y_stride) const {
    if constexpr (kOnTiles) {
      for (; rows >= kTileRows; rows -= kTileRows, x = x.Skip(kTileRows), y += kTileRows * y_stride) {
        this->MultiplyAddTiles(x.x, x.stride, y, y_stride);
      }
    }
    const int blocks = DivideUp(rows, max_rows_);
    const Weight* panel = data_;
    for (int p = 0; p < panels_; ++p) {
      const bool wide = p < WidePanels();
      const int vectors = wide ? widest_ : widest_ - 1;
      // Rows are the inner loop, so that a panel stays in the first cache while all rows are multiplied.
      for (int block = 0, r = 0; block < blocks; ++block) {
        const int count = DivideUp(rows - r, blocks - block);
        (wide ? wide_ : narrow_)[count - 1](panel, depth_, x.Skip(r), y + r * y_stride, y_stride);
        r += count;
      }
      panel += static_cast<long>(packed_depth_) * vectors * kLanes;
      y += vectors * kLanes;
    }
  }

 private:
  // Rounds `columns` columns, at most a vector, to bytes; words of consecutive rows lie `stride_of_words` apart.
  static void PackBytes(const float* from, long stride, int rows, int columns, Int8* panel, long stride_of_words) {
    const auto row = [&](int k) {
      if (columns == kLanes) return LoadFloats(from + k * stride);
      float values[kLanes] = {};
      std::memcpy(values, from + k * stride, columns * sizeof(float));
      return LoadFloats(values);
    };
    Floats largest = {}, step, inverse;
    for (int k = 0; k < rows; ++k) {
      const Floats values = row(k);
      largest = Max(largest, Max(values, -values));
    }
    for (int i = 0; i < kLanes; ++i) {
      const Grid grid = GridFor(largest[i]);
      step[i] = grid.step;
      inverse[i] = grid.inverse;
    }
    Ints sum = {};
    Int8* to = panel + 2 * stride_of_words;
    for (int k = 0; k < rows; k += kStep, to += stride_of_words) {
      Words word = {};
      for (int i = 0; i < kStep && k + i < rows; ++i) {
        const Ints rounded = RoundToInts(row(k + i) * inverse);
        sum += rounded;
        word |= ((Words)rounded & 0xffu) << (8 * i);
      }
      Store(to, word);
    }
    Store(panel, step);
    Store(panel + stride_of_words, sum * -kByteOffset);
  }

#if defined(WAVEGEN_TILES)
  // Does the same for kTileRows rows on the tile unit. x is rounded in chunks of its depth; y holds the sums between.
  void MultiplyAddTiles(const float* x, long x_stride, float* y, long y_stride) const {
    constexpr int kChunk = 512;
    alignas(64) BFloat16 rounded[kTileRows * kChunk];
    for (int k = 0; k < packed_depth_; k += kChunk) {
      const int depth = packed_depth_ - k < kChunk ? packed_depth_ - k : kChunk;
      const int given = depth_ - k < depth ? depth_ - k : depth;
      for (int r = 0; r < kTileRows; ++r) {
        Convert(x + r * x_stride + k, given, rounded + r * kChunk);
        std::memset(rounded + r * kChunk + given, 0, (depth - given) * sizeof(BFloat16));
      }
      const Weight* panel = data_;
      for (int p = 0, vector = 0; p < panels_; ++p) {
        const int vectors = p < WidePanels() ? widest_ : widest_ - 1;
        TileProductFor(vectors)(panel + static_cast<long>(k) * vectors * kLanes, depth, rounded, kChunk,
                                y + vector * kLanes, y_stride);
        panel += static_cast<long>(packed_depth_) * vectors * kLanes;
        vector += vectors;
      }
    }
  }
#endif

  // Panels differ by at most one vector; the wider ones come first.
  int WidePanels() const { return vectors_ - panels_ * (widest_ - 1); }

  // Returns where a vector of columns begins in its panel's first row, and the panel's width in vectors.
  Weight* Panel(int vector, int* width) const {
    const int in_wide = WidePanels() * widest_;
    *width = vector < in_wide ? widest_ : widest_ - 1;
    const int inside = vector < in_wide ? vector % widest_ : (vector - in_wide) % (widest_ - 1);
    return data_ + static_cast<long>(vector - inside) * packed_depth_ * kLanes + inside * kStep * kLanes;
  }

  Weight* data_ = nullptr;
  int depth_ = 0, packed_depth_ = 0, vectors_ = 0, panels_ = 0, widest_ = 0, max_rows_ = 0;
  PanelProduct<Weight> wide_[kMaxRows] = {}, narrow_[kMaxRows] = {};
};

}  // namespace

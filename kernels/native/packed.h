// Lays the network out as the loop over time reads it: matrices are packed for products, in the order of reading.

#pragma once

#include <stdlib.h>

#include "matrix.h"
#include "vectors.h"
#include "wavenet.h"
#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace {

using wavegen::Call;
using wavegen::Network;
using wavegen::Outcome;

// Holds aligned, zeroed memory in one piece, on huge pages where the system has them: each sample reads all weights.
class Arena {
 public:
  explicit Arena(long bytes) {
    constexpr long kPage = 1 << 21;
    const long whole = (bytes + kPage - 1) / kPage * kPage;
    begin_ = static_cast<char*>(aligned_alloc(kPage, whole));
    if (begin_ == nullptr) return;
#if defined(__linux__)
    madvise(begin_, whole, MADV_HUGEPAGE);
#endif
    memset(begin_, 0, whole);
  }
  ~Arena() { free(begin_); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  bool ok() const { return begin_ != nullptr; }

  template <class T>
  T* Take(long count) {
    T* const taken = reinterpret_cast<T*>(begin_ + used_);
    used_ += Bytes<T>(count);
#if defined(__SANITIZE_ADDRESS__)
    const char* const end = reinterpret_cast<const char*>(taken + count);
    ASAN_POISON_MEMORY_REGION(end, begin_ + used_ - end);
#endif
    return taken;
  }

  // Returns the bytes that Take uses for so many.
  template <class T>
  static long Bytes(long count) {
    constexpr long kAlignment = 64;
#if defined(__SANITIZE_ADDRESS__)
    constexpr long kGap = kAlignment;  // a fence behind each array, without which all are one block to the sanitizer
#else
    constexpr long kGap = 0;
#endif
    return (count * static_cast<long>(sizeof(T)) + kGap + kAlignment - 1) / kAlignment * kAlignment;
  }

 private:
  char* begin_ = nullptr;
  long used_ = 0;
};

inline std::uint32_t Bits(float x) {
  std::uint32_t word;
  memcpy(&word, &x, sizeof word);
  return word;
}

inline std::uint32_t Bits(BFloat16 x) { return static_cast<std::uint32_t>(x.bits) << 16; }

// Returns whether no value is infinite or NaN, whose exponents are all ones. Integers let the loop be vectorised.
template <class Weight>
bool AllFinite(const Weight* x, long n) {
  std::uint32_t largest = 0;
  for (long i = 0; i < n; ++i) {
    const std::uint32_t magnitude = Bits(x[i]) & 0x7fffffffu;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest < 0x7f800000u;
}

// Returns how many steps are a block: enough that a product has kMaxRows rows. A tile has more, as whether streams are
// multiplied on tiles must not depend on where a chunk ends.
inline int BlockSteps(int streams) { return streams >= kMaxRows ? 1 : kMaxRows / streams; }
static_assert(kMaxRows < kTileRows);

// Holds one layer's matrices. Gate columns are laid out as [tanh, sigmoid], each padded to whole vectors. The
// condition's is read once a frame, and not rounded to bytes.
template <class Weight>
struct Layer {
  Matrix<Weight> past;     // [(K-1) R, gates], the oldest tap first
  Matrix<Weight> newest;   // [R, gates]
  Matrix<Weight> outward;  // [G, residual | skip]
  Matrix<typename Packing<Weight>::Given> condition;
  const float* bias;           // gates
  const float* residual_bias;  // padded R
  long dilation, ring_rows, ring_start;
  bool blocked;  // the past of a whole block is known at its start
};

// Holds the network in the form that the loop reads; all threads share it.
template <class Weight>
class Packed {
 public:
  using Given = typename Packing<Weight>::Given;

  Packed(const Network& net, int streams)
      : net(net),
        residual(Padded(net.residual)),
        gate(Padded(net.gate)),
        skip(Padded(net.skip)),
        hidden(Padded(net.hidden)),
        outputs(Padded(net.outputs)),
        block(BlockSteps(streams)),
        arena_(Layout(streams, nullptr)) {
    if (arena_.ok()) Layout(streams, &arena_);
  }

  bool ok() const { return arena_.ok(); }
  const Layer<Weight>& layer(int l) const { return layers_[l]; }

  // Returns whether all weights are finite.
  bool Finite() const {
    const long l = net.layers, r = net.residual, g = net.gate, s = net.skip, h = net.hidden, o = net.outputs;
    return AllFinite(Weights(net.dilated), l * net.taps * r * 2 * g) && AllFinite(Weights(net.residuals), l * g * r) &&
           AllFinite(Weights(net.skips), l * g * s) && AllFinite(Weights(net.hiddens), s * h) &&
           AllFinite(Weights(net.output), h * o) && AllFinite(Weights(net.conditions), l * net.condition * 2 * g) &&
           AllFinite(Weights(net.input_table),
                     static_cast<long>(net.input_taps) * (net.scalar_input ? 2 : net.levels) * r) &&
           AllFinite(net.input_bias, r) && AllFinite(net.dilated_bias, l * 2 * g) &&
           AllFinite(net.residual_bias, l * r) && AllFinite(net.skip_bias, s) && AllFinite(net.hidden_bias, h) &&
           AllFinite(net.output_bias, o);
  }

  static const Given* Weights(const void* data) { return static_cast<const Given*>(data); }

  const Network net;
  const int residual, gate, skip, hidden, outputs;  // padded widths
  const int block;                                  // steps
  Matrix<Weight> hidden_matrix, output_matrix;
  const float *skip_bias, *hidden_bias, *output_bias;

 private:
  // Packs everything into the arena, if there is one; returns the bytes that it takes.
  long Layout(int streams, Arena* arena) {
    long bytes = 0;
    const auto place = [&](auto* matrix, int depth, int columns, int rows) {
      using Kind = std::remove_pointer_t<decltype(matrix)>;
      using Element = typename Kind::Element;
      *matrix = Kind(depth, columns, rows);
      bytes += Arena::Bytes<Element>(matrix->size());
      if (arena != nullptr) matrix->set_data(arena->template Take<Element>(matrix->size()));
    };
    const auto bias = [&](const float* from, int count, int padded, const float** to) {
      bytes += Arena::Bytes<float>(padded);
      if (arena == nullptr) return;
      float* const data = arena->template Take<float>(padded);
      memcpy(data, from, count * sizeof(float));
      *to = data;
    };
    bytes += Arena::Bytes<Layer<Weight>>(net.layers);
    Layer<Weight> measured;
    if (arena != nullptr) layers_ = arena->template Take<Layer<Weight>>(net.layers);
    const int r = net.residual, g = net.gate, s = net.skip, past_taps = net.taps - 1;
    long ring_start = 0;
    // What is read in every step comes first, in the order of reading, so that it is one stream for the prefetchers.
    for (int l = 0; l < net.layers; ++l) {
      Layer<Weight>& layer = arena != nullptr ? layers_[l] : measured;
      place(&layer.newest, r, 2 * gate, streams);
      place(&layer.outward, g, residual + skip, streams);
      bias(net.residual_bias + static_cast<long>(l) * r, r, residual, &layer.residual_bias);
    }
    place(&hidden_matrix, s, hidden, streams);
    place(&output_matrix, net.hidden, outputs, streams);
    bias(net.skip_bias, s, skip, &skip_bias);
    bias(net.hidden_bias, net.hidden, hidden, &hidden_bias);
    bias(net.output_bias, net.outputs, outputs, &output_bias);
    for (int l = 0; l < net.layers; ++l) {
      Layer<Weight>& layer = arena != nullptr ? layers_[l] : measured;
      layer.dilation = net.dilations[l];
      layer.ring_rows = past_taps * layer.dilation;
      layer.ring_start = ring_start;
      ring_start += layer.ring_rows;
      layer.blocked = layer.dilation >= block;
      place(&layer.past, past_taps * r, 2 * gate, layer.blocked ? streams * block : streams);
      place(&layer.condition, net.condition, 2 * gate, streams);
      bytes += Arena::Bytes<float>(2 * gate);
      if (arena != nullptr) {
        float* const gate_bias = arena->template Take<float>(2 * gate);
        layer.bias = gate_bias;
        FillLayer(l, &layer, gate_bias);
      }
    }
    if (arena != nullptr) {
      hidden_matrix.Pack(Weights(net.hiddens), net.hidden, s, net.hidden, 0);
      output_matrix.Pack(Weights(net.output), net.outputs, net.hidden, net.outputs, 0);
    }
    return bytes;
  }

  void FillLayer(int l, Layer<Weight>* layer, float* gate_bias) {
    const int r = net.residual, g = net.gate, s = net.skip, past_taps = net.taps - 1;
    const Given* const dilated = Weights(net.dilated) + static_cast<long>(l) * net.taps * r * 2 * g;
    const Given* const newest = dilated + static_cast<long>(past_taps) * r * 2 * g;
    const Given* const conditions = Weights(net.conditions) + static_cast<long>(l) * net.condition * 2 * g;
    for (int half = 0; half < 2; ++half) {
      layer->past.Pack(dilated + half * g, 2 * g, past_taps * r, g, half * gate);
      layer->newest.Pack(newest + half * g, 2 * g, r, g, half * gate);
      if (net.condition > 0) layer->condition.Pack(conditions + half * g, 2 * g, net.condition, g, half * gate);
      memcpy(gate_bias + half * gate, net.dilated_bias + (2l * l + half) * g, g * sizeof(float));
    }
    layer->outward.Pack(Weights(net.residuals) + static_cast<long>(l) * g * r, r, g, r, 0);
    layer->outward.Pack(Weights(net.skips) + static_cast<long>(l) * g * s, s, g, s, residual);
  }

  Arena arena_;
  Layer<Weight>* layers_ = nullptr;
};

}  // namespace

// Generates streams side by side, sample after sample.
//
// Time is divided into blocks of some steps. All taps of a layer but the newest lie at least its dilation in the past;
// where that is before the block, their share of the layer's gates is computed for the whole block by one product, so
// that its weights are read once per block and not once per sample. Each sample then needs two dependent products per
// layer: the newest tap into the gates, and the gated values into the residual and the skip channels at once.

#pragma once

#include "draw.h"
#include "packed.h"
#include "tiles.h"

namespace {

// Generates some consecutive streams of a call, from its first step to its last.
template <class Weight>
class Streams {
 public:
  using Given = typename Packing<Weight>::Given;

  Streams(const Call& call, const Packed<Weight>& packed, int first, int count)
      : call_(call), packed_(packed), first_(first), count_(count), arena_(Layout(nullptr)) {
    if (arena_.ok()) Layout(&arena_);
  }

  bool ok() const { return arena_.ok(); }

  void Run() {
    [[maybe_unused]] const TileUnit unit;
    for (int l = 0; l < packed_.net.layers; ++l) {
      slots_[l] = (call_.position % packed_.layer(l).ring_rows + packed_.layer(l).ring_rows) % packed_.layer(l).ring_rows;
    }
    int frame = -1;
    for (int t = 0; t < call_.steps; t += packed_.block) {
      const int steps = call_.steps - t < packed_.block ? call_.steps - t : packed_.block;
      for (int l = 0; l < packed_.net.layers; ++l) {
        if (packed_.layer(l).blocked) ReadPast(l, 0, steps);
      }
      for (int s = 0; s < steps; ++s) {
        const int now = FrameOf(t + s);
        if (now != frame) ReadCondition(frame = now);
        Step(t + s, s);
      }
    }
  }

 private:
  long Layout(Arena* arena) {
    long bytes = 0;
    const auto take = [&](auto** pointer, long count) {
      using T = typename Pointee<decltype(*pointer)>::type;
      bytes += Arena::Bytes<T>(count);
      if (arena != nullptr) *pointer = arena->template Take<T>(count);
    };
    const Packed<Weight>& p = packed_;
    const long b = count_;
    past_width_ = Padded((p.net.taps - 1) * p.net.residual);
    condition_width_ = Padded(p.net.condition);
    take(&slots_, p.net.layers);
    take(&past_, past_width_ * p.block * b);
    take(&past_gates_, 2l * p.gate * p.block * b * p.net.layers);
    take(&base_gates_, 2l * p.gate * b * p.net.layers);
    take(&condition_, condition_width_ * b);
    take(&gates_, 2l * p.gate * b);
    take(&gated_, p.gate * b);
    take(&channels_, static_cast<long>(p.residual + p.skip) * b);
    take(&hidden_, p.hidden * b);
    take(&outputs_, p.outputs * b);
    take(&row_, Padded(p.net.residual));
    if constexpr (kInBytes<Weight>) {
      long widest = past_width_ * p.block;
      for (const int width : {p.residual, p.gate, p.skip, p.hidden}) widest = width > widest ? width : widest;
      take(&bytes_, widest * b);
      take(&steps_, static_cast<long>(p.block) * b);
    }
    // DrawFromSoftmax needs two arrays of levels or components in whole blocks.
    take(&scratch_, 2l * (p.outputs + kBlock));
    return bytes;
  }

  template <class T>
  struct Pointee;
  template <class T>
  struct Pointee<T*&> {
    using type = T;
  };

  int FrameOf(int t) const {
    if (call_.condition == nullptr) return 0;
    const long frame = (static_cast<long>(call_.condition_offset) + t) / call_.condition_hop;
    // A traced offset is not checked before the call.
    return static_cast<int>(frame < 0 ? 0 : frame < call_.frames ? frame : call_.frames - 1);
  }

  // Computes every layer's bias, with its share of the condition.
  void ReadCondition(int frame) {
    const Packed<Weight>& p = packed_;
    for (int b = 0; b < count_ && call_.condition != nullptr; ++b) {
      const float* from = call_.condition + (static_cast<long>(first_ + b) * call_.frames + frame) * p.net.condition;
      memcpy(condition_ + b * condition_width_, from, p.net.condition * sizeof(float));
    }
    for (int l = 0; l < p.net.layers; ++l) {
      float* const base = base_gates_ + 2l * p.gate * count_ * l;
      for (int b = 0; b < count_; ++b) memcpy(base + 2l * p.gate * b, p.layer(l).bias, 2l * p.gate * sizeof(float));
      if (call_.condition != nullptr) {
        p.layer(l).condition.MultiplyAdd({condition_, condition_width_}, count_, base, 2l * p.gate);
      }
    }
  }

  // Computes the share that the older taps have of `steps` steps' gates, from step `first` of the block on.
  void ReadPast(int l, int first, int steps) {
    const Packed<Weight>& p = packed_;
    const Layer<Weight>& layer = p.layer(l);
    const int r = p.net.residual;
    const Given* const rings = static_cast<const Given*>(call_.rings);
    for (int s = 0; s < steps; ++s) {
      for (int j = 0; j < p.net.taps - 1; ++j) {
        // A ring is as long as the oldest tap's lag, so tap j is found j dilations ahead of the slot to be written.
        const long slot = (slots_[l] + s + j * layer.dilation) % layer.ring_rows;
        const Given* from = rings + ((layer.ring_start + slot) * call_.batch + first_) * r;
        for (int b = 0; b < count_; ++b) Convert(from + b * r, r, past_ + (s * count_ + b) * past_width_ + j * r);
      }
    }
    float* const gates = PastGates(l, first);
    memset(gates, 0, 2l * p.gate * steps * count_ * sizeof(float));
    MultiplyAdd(layer.past, past_, past_width_, steps * count_, gates, 2l * p.gate);
  }

  // y += x W for some rows, which are first rounded to bytes where the matrix is.
  void MultiplyAdd(const Matrix<Weight>& matrix, const float* x, long x_stride, int rows, float* y, long y_stride) {
    if constexpr (kInBytes<Weight>) {
      const long stride = Padded(matrix.depth());
      for (int r = 0; r < rows; ++r) steps_[r] = RoundRow(x + r * x_stride, matrix.depth(), bytes_ + r * stride);
      matrix.MultiplyAdd({bytes_, stride, steps_}, rows, y, y_stride);
    } else {
      matrix.MultiplyAdd({x, x_stride}, rows, y, y_stride);
    }
  }

  float* PastGates(int l, int step) {
    return past_gates_ + 2l * packed_.gate * count_ * (static_cast<long>(l) * packed_.block + step);
  }

  void Step(int t, int step_of_block) {
    const Packed<Weight>& p = packed_;
    const long width = p.residual + p.skip, gates = 2l * p.gate;
    for (int b = 0; b < count_; ++b) ReadToken(t, b, channels_ + b * width);
    for (int l = 0; l < p.net.layers; ++l) {
      const Layer<Weight>& layer = p.layer(l);
      if (!layer.blocked) ReadPast(l, step_of_block, 1);
      WriteRing(l);
      Add(PastGates(l, step_of_block), base_gates_ + gates * count_ * l, gates * count_, gates_);
      MultiplyAdd(layer.newest, channels_, width, count_, gates_, gates);
      for (int b = 0; b < count_; ++b) {
        for (int i = 0; i < p.gate; i += kLanes) {
          const float* const a = gates_ + b * gates + i;
          Store(gated_ + b * p.gate + i, GatedActivation(LoadFloats(a), LoadFloats(a + p.gate)));
        }
        float* const h = channels_ + b * width;
        Add(h, layer.residual_bias, p.residual, h);
      }
      MultiplyAdd(layer.outward, gated_, p.gate, count_, channels_, width);
    }
    for (int b = 0; b < count_; ++b) {
      Relu(channels_ + b * width + p.residual, p.skip);
      memcpy(hidden_ + b * p.hidden, p.hidden_bias, p.hidden * sizeof(float));
      memcpy(outputs_ + b * p.outputs, p.output_bias, p.outputs * sizeof(float));
    }
    MultiplyAdd(p.hidden_matrix, channels_ + p.residual, width, count_, hidden_, p.hidden);
    Relu(hidden_, p.hidden * count_);
    MultiplyAdd(p.output_matrix, hidden_, p.hidden, count_, outputs_, p.outputs);
    for (int b = 0; b < count_; ++b) WriteToken(t, b, outputs_ + b * p.outputs);
  }

  // Writes row b of `channels`: the first layer's input, and the bias of the skip channels.
  void ReadToken(int t, int b, float* channels) {
    const Packed<Weight>& p = packed_;
    const Network& net = p.net;
    const int r = net.residual;
    memset(channels, 0, p.residual * sizeof(float));
    memcpy(channels, net.input_bias, r * sizeof(float));
    memcpy(channels + p.residual, p.skip_bias, p.skip * sizeof(float));
    const std::int32_t* const newest = call_.history + static_cast<long>(first_ + b + 1) * call_.reach - 1;
    for (int j = 0; j < net.input_taps; ++j) {
      if (newest[-j] < 0) continue;
      const long token = newest[-j] < net.levels ? newest[-j] : net.levels - 1;
      const long tap = net.input_taps - 1 - j;
      const Given* const table = static_cast<const Given*>(net.input_table);
      if (net.scalar_input) {
        const float* const value = net.level_values + 2 * token;
        for (int i = 0; i < 2; ++i) {
          Convert(table + (tap * 2 + i) * r, r, row_);
          for (int c = 0; c < r; ++c) channels[c] += value[i] * row_[c];
        }
      } else {
        Convert(table + (tap * net.levels + token) * r, r, row_);
        for (int c = 0; c < r; ++c) channels[c] += row_[c];
      }
    }
    if (call_.inputs != nullptr) {
      const float* const input = call_.inputs + (static_cast<long>(first_ + b) * call_.steps + t) * r;
      for (int c = 0; c < r; ++c) channels[c] += input[c];
    }
  }

  void WriteRing(int l) {
    const Layer<Weight>& layer = packed_.layer(l);
    const int r = packed_.net.residual;
    Given* const to =
        static_cast<Given*>(call_.rings) + ((layer.ring_start + slots_[l]) * call_.batch + first_) * r;
    for (int b = 0; b < count_; ++b) Convert(channels_ + b * (packed_.residual + packed_.skip), r, to + b * r);
    if (++slots_[l] == layer.ring_rows) slots_[l] = 0;
  }

  void WriteToken(int t, int b, const float* outputs) {
    const Network& net = packed_.net;
    const int row = first_ + b;
    const long place = static_cast<long>(row) * call_.steps + t;
    std::int32_t* const history = call_.history + static_cast<long>(row) * call_.reach;
    if (call_.logits != nullptr) memcpy(call_.logits + place * net.outputs, outputs, net.outputs * sizeof(float));
    int token = call_.forced == nullptr ? -1 : call_.forced[place];
    if (token < 0) {
      float uniform[2];
      Uniforms(call_.draw.key, call_.position + static_cast<std::uint32_t>(t),
               call_.row_offset + static_cast<std::uint32_t>(row), uniform);
      token = call_.head.mixture ? DrawFromMixture(outputs, net.levels, call_.head, call_.draw,
                                                   Prediction(outputs + 3 * call_.head.mixtures, history), uniform, scratch_)
                                 : DrawFromSoftmax(outputs, net.levels, call_.draw, uniform[0], scratch_);
    }
    call_.tokens[place] = token;
    memmove(history, history + 1, (call_.reach - 1) * sizeof(std::int32_t));
    history[call_.reach - 1] = token;
  }

  // Returns the linear prediction of the next amplitude; the first coefficient is the most recent token's.
  float Prediction(const float* coefficients, const std::int32_t* history) const {
    float sum = 0;
    for (int i = 0; i < call_.head.linear_prediction; ++i) {
      const int token = history[call_.reach - 1 - i];
      if (token < 0) continue;
      const long level = token < packed_.net.levels ? token : packed_.net.levels - 1;
      sum += coefficients[i] * packed_.net.level_values[2 * level + 1];
    }
    return sum;
  }

  const Call& call_;
  const Packed<Weight>& packed_;
  const int first_, count_;
  int past_width_ = 0, condition_width_ = 0;
  long* slots_ = nullptr;         // [L], where each ring is written next
  float* past_ = nullptr;         // [block, B, past_width]
  float* past_gates_ = nullptr;   // [L, block, B, gates]
  float* base_gates_ = nullptr;   // [L, B, gates]
  float* condition_ = nullptr;    // [B, condition_width]
  float* gates_ = nullptr;        // [B, gates]
  float* gated_ = nullptr;        // [B, G]
  float* channels_ = nullptr;     // [B, residual | skip]
  float* hidden_ = nullptr;       // [B, H]
  float* outputs_ = nullptr;      // [B, O]
  float* row_ = nullptr;          // [R]
  Int8* bytes_ = nullptr;         // what is multiplied, rounded to bytes
  float* steps_ = nullptr;        // [block, B], of the rows of bytes
  float* scratch_ = nullptr;
  Arena arena_;
};

}  // namespace

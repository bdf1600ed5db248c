// The WaveNet sampler for one instruction set: included by one source file each, which defines WAVEGEN_ENGINE.
//
// Time goes by in blocks of some steps. All taps of a layer but the newest lie at least its dilation in the past; where
// that reaches behind the block, their share of the layer's gates is computed for the whole block by one product, so that
// its weights are read once a block and not once a sample. What is left for a sample are two dependent products a layer:
// the newest tap into the gates, and the gated values into the residual and the skip channels at once.

#include <stdlib.h>

#include "draw.h"
#include "matrix.h"
#include "peaks.h"
#include "threads.h"
#include "vectors.h"
#include "wavenet.h"
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace {

using wavegen::Call;
using wavegen::Network;
using wavegen::Outcome;

// Aligned, zeroed memory in one piece, on huge pages where the system has them: weights are read through once a sample.
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
    return taken;
  }

  // What Take uses for so many.
  template <class T>
  static long Bytes(long count) {
    constexpr long kAlignment = 64;
    return (count * static_cast<long>(sizeof(T)) + kAlignment - 1) / kAlignment * kAlignment;
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

// Whether no value is infinite or NaN: their exponent is all ones. Whole numbers, so that the loop is vectorised.
template <class Weight>
bool AllFinite(const Weight* x, long n) {
  std::uint32_t largest = 0;
  for (long i = 0; i < n; ++i) {
    const std::uint32_t magnitude = Bits(x[i]) & 0x7fffffffu;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest < 0x7f800000u;
}

// How many steps are taken as a block: enough that a product has kMaxRows rows.
inline int BlockSteps(int streams) { return streams >= kMaxRows ? 1 : kMaxRows / streams; }

// One layer's matrices. Gate columns are laid out as [tanh, sigmoid], each padded to whole vectors.
template <class Weight>
struct Layer {
  Matrix<Weight> past;     // [(K-1) R, gates], the oldest tap first
  Matrix<Weight> newest;   // [R, gates]
  Matrix<Weight> outward;  // [G, residual | skip]
  Matrix<Weight> condition;
  const float* bias;           // gates
  const float* residual_bias;  // padded R
  long dilation, ring_rows, ring_start;
  bool blocked;  // the past of a whole block is known at its start
};

// The network in the form that the loop reads; shared by all threads.
template <class Weight>
class Packed {
 public:
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

  // Whether all weights are finite.
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

  static const Weight* Weights(const void* data) { return static_cast<const Weight*>(data); }

  const Network net;
  const int residual, gate, skip, hidden, outputs;  // padded widths
  const int block;                                  // steps
  Matrix<Weight> hidden_matrix, output_matrix;
  const float *skip_bias, *hidden_bias, *output_bias;

 private:
  // With an arena packs everything into it; without one returns the bytes that it takes.
  long Layout(int streams, Arena* arena) {
    long bytes = 0;
    const auto place = [&](Matrix<Weight>* matrix, int depth, int columns, int rows) {
      *matrix = Matrix<Weight>(depth, columns, rows);
      bytes += Arena::Bytes<Weight>(matrix->size());
      if (arena != nullptr) matrix->set_data(arena->template Take<Weight>(matrix->size()));
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
    // What is read in every step comes first, in the order of reading: one stream for the prefetchers.
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
    const Weight* const dilated = Weights(net.dilated) + static_cast<long>(l) * net.taps * r * 2 * g;
    const Weight* const newest = dilated + static_cast<long>(past_taps) * r * 2 * g;
    const Weight* const conditions = Weights(net.conditions) + static_cast<long>(l) * net.condition * 2 * g;
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

// Generates some consecutive streams of a call, from its first step to its last.
template <class Weight>
class Streams {
 public:
  Streams(const Call& call, const Packed<Weight>& packed, int first, int count)
      : call_(call), packed_(packed), first_(first), count_(count), arena_(Layout(nullptr)) {
    if (arena_.ok()) Layout(&arena_);
  }

  bool ok() const { return arena_.ok(); }

  void Run() {
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
    // Two arrays of levels or components in whole blocks, see DrawFromSoftmax.
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
    const int frame = static_cast<int>((static_cast<long>(call_.condition_offset) + t) / call_.condition_hop);
    return frame < call_.frames ? frame : call_.frames - 1;
  }

  // Every layer's bias, with its share of the condition.
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
        p.layer(l).condition.MultiplyAdd(condition_, condition_width_, count_, base, 2l * p.gate);
      }
    }
  }

  // The share of `steps` steps' gates that the older taps have, from step `first` of the block on.
  void ReadPast(int l, int first, int steps) {
    const Packed<Weight>& p = packed_;
    const Layer<Weight>& layer = p.layer(l);
    const int r = p.net.residual;
    const Weight* const rings = static_cast<const Weight*>(call_.rings);
    for (int s = 0; s < steps; ++s) {
      for (int j = 0; j < p.net.taps - 1; ++j) {
        // A ring is as long as the oldest tap's lag, so tap j is found j dilations ahead of the slot to be written.
        const long slot = (slots_[l] + s + j * layer.dilation) % layer.ring_rows;
        const Weight* from = rings + ((layer.ring_start + slot) * call_.batch + first_) * r;
        for (int b = 0; b < count_; ++b) Convert(from + b * r, r, past_ + (s * count_ + b) * past_width_ + j * r);
      }
    }
    float* const gates = PastGates(l, first);
    memset(gates, 0, 2l * p.gate * steps * count_ * sizeof(float));
    layer.past.MultiplyAdd(past_, past_width_, steps * count_, gates, 2l * p.gate);
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
      layer.newest.MultiplyAdd(channels_, width, count_, gates_, gates);
      for (int b = 0; b < count_; ++b) {
        for (int i = 0; i < p.gate; i += kLanes) {
          const float* const a = gates_ + b * gates + i;
          Store(gated_ + b * p.gate + i, GatedActivation(LoadFloats(a), LoadFloats(a + p.gate)));
        }
        float* const h = channels_ + b * width;
        Add(h, layer.residual_bias, p.residual, h);
      }
      layer.outward.MultiplyAdd(gated_, p.gate, count_, channels_, width);
    }
    for (int b = 0; b < count_; ++b) {
      Relu(channels_ + b * width + p.residual, p.skip);
      memcpy(hidden_ + b * p.hidden, p.hidden_bias, p.hidden * sizeof(float));
      memcpy(outputs_ + b * p.outputs, p.output_bias, p.outputs * sizeof(float));
    }
    p.hidden_matrix.MultiplyAdd(channels_ + p.residual, width, count_, hidden_, p.hidden);
    Relu(hidden_, p.hidden * count_);
    p.output_matrix.MultiplyAdd(hidden_, p.hidden, count_, outputs_, p.outputs);
    for (int b = 0; b < count_; ++b) WriteToken(t, b, outputs_ + b * p.outputs);
  }

  // Row b of `channels`: the first layer's input, and the bias of the skip channels.
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
      const Weight* const table = static_cast<const Weight*>(net.input_table);
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
    Weight* const to =
        static_cast<Weight*>(call_.rings) + ((layer.ring_start + slots_[l]) * call_.batch + first_) * r;
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

  // The linear prediction of the next amplitude, coefficients for the most recent token first.
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
  float* scratch_ = nullptr;
  Arena arena_;
};

template <class Weight>
Outcome GenerateWith(const Call& call, int threads) {
  const int most = (call.batch + threads - 1) / threads;
  const Packed<Weight> packed(call.network, most);
  if (!packed.ok()) return Outcome::kNoMemory;
  if (!packed.Finite()) return Outcome::kNotFinite;
  bool ok[wavegen::kMaxThreads];
  const auto run = [&](int thread) {
    const int first = static_cast<int>(static_cast<long>(call.batch) * thread / threads);
    const int end = static_cast<int>(static_cast<long>(call.batch) * (thread + 1) / threads);
    Streams<Weight> streams(call, packed, first, end - first);
    ok[thread] = streams.ok();
    if (streams.ok()) streams.Run();
  };
  wavegen::RunThreads(
      threads, [](const void* work, int thread) { (*static_cast<const decltype(run)*>(work))(thread); }, &run);
  for (int thread = 0; thread < threads; ++thread) {
    if (!ok[thread]) return Outcome::kNoMemory;
  }
  return Outcome::kDone;
}

}  // namespace

namespace wavegen::WAVEGEN_ENGINE {

Outcome Generate(const Call& call, bool bfloat16, int threads) {
  return bfloat16 ? GenerateWith<BFloat16>(call, threads) : GenerateWith<float>(call, threads);
}

Peaks MeasurePeaks(long bytes) { return {ArithmeticPeak(), ReadPeak(bytes)}; }

}  // namespace wavegen::WAVEGEN_ENGINE

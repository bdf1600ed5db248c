// The WaveNet sampler for GPUs with clusters: the layers are a pipeline of blocks that keep their weights, and samples pass
// from block to block through distributed shared memory.
//
// A cluster is kStages blocks of kStageLayers layers each and a last block for the ends of the network: it embeds tokens,
// runs the head and draws. Streams pass in groups of 8, the width of a tile of the tensor cores; up to kGroups groups are
// in flight in a cluster, so that stages do not idle. A single sample waits for every layer in turn, and everything here
// serves to shorten that wait:
//
// - Look-ahead. With h_l = h_(l-1) + Wr_(l-1) z_(l-1) + br_(l-1), the input of layer l's gate is
//
//       a_l = [b_l + Wc_l br_(l-1) + condition + sum_j Wp_lj h_l(t - lag_j)] + Wc_l h_(l-1) + (Wc_l Wr_(l-1)) z_(l-1),
//
//   so one product waits for z_(l-1), not two. The bracket, `known`, is computed before the sample comes.
// - The weights that a sample waits for are in registers (fragments.h); what is not waited for is done after the sample
//   has left: the skip connections, the rings, and `known` of the next sample.
// - One barrier of the block per layer, and one message per block.
//
// Why the threads agree. There are three kinds of shared data.
//
// 1. Inboxes, written by the block before by messages: z_in, h_in, wide_h_in, skip_in of a stage, skip_in of the head; one
//    copy per group. A warp reads an inbox only after it has awaited the phase of this step, which ends when all bytes have
//    arrived. Nothing is overwritten early: the messages of step t + 1 to any inbox follow the token of step t, that token
//    follows the last message of skips of step t, and the sums of skips pass through all stages. A stage sends its skips
//    of step t after its block's barriers of step t, which every warp reaches only after it has read z_in, h_in and
//    wide_h_in; and skip_in is read by the very threads that then send. The head's warps read skip_in before the barrier
//    that precedes the draw. For the same reason no warp can miss a phase: the next one cannot end before this warp has
//    passed this one. (A warp without a tile of skips sends nothing, so that it must not await skip_in either.) A phase
//    may receive bytes before a thread has said how many it expects; its count is then negative for a while.
// 2. z and h of a block's own layers: written before the barrier of their layer, read after it. The barrier after the rings
//    separates these reads from the writes for the next group.
// 3. y and the logits of the head: written before a barrier and read after it, alternately, so that the next group's write
//    of one is separated from this group's reads by the barrier of the other. Tokens of the past are each warp's own.
//
// Rings are in global memory. A row is written by the block that reads it later, with a barrier between.

#pragma once

#include "sizes.h"

#ifdef WAVENET_EMULATOR
#include "emulator.h"
#else
#include "device.h"
#endif

#include "params.h"

#include "draw.h"
#include "fragments.h"

namespace wavenet {

using AheadMatrices = Matrices<kStageLayers, kAheadInRegisters, kAheadOnChip, 2 * kGate, kGate>;
using CurrentMatrices = Matrices<kStageLayers, kCurrentInRegisters, kCurrentOnChip, 2 * kGate, kResidual>;
using PastMatrices = Matrices<kStageLayers, 0, kPastOnChip, 2 * kGate, (kTaps - 1) * kResidual>;
using ResidualMatrices = Matrices<kStageLayers, kResidualInRegisters, kResidualOnChip, kResidual, kGate>;
using SkipMatrices = Matrices<kStageLayers, 0, kSkipOnChip, kSkip, kGate>;
using HiddenMatrix = Matrices<1, kHiddenInRegisters, kHiddenOnChip, kHidden, kSkip>;
using OutputMatrix = Matrices<1, kOutputInRegisters, kOutputOnChip, kOutputs, kHidden>;

template <int kChannels>
using Rows = BFloat16[kChannels][kStreams];
template <int kChannels>
using WideRows = float[kChannels][kStreams];

struct StageMemory {
  static constexpr int kFragments = AheadMatrices::kSharedFragments + CurrentMatrices::kSharedFragments +
                                    PastMatrices::kSharedFragments + ResidualMatrices::kSharedFragments +
                                    SkipMatrices::kSharedFragments;
  uint4 weights[Most(kFragments, 1)];
  float4 known[kGroups][kStageLayers][AheadMatrices::kTurns][kThreads];  // each thread's own
  WideRows<kResidual> wide_h_in[kGroups];
  WideRows<kSkip> skip_in[kGroups];
  Rows<kGate> z_in[kGroups];
  Rows<kResidual> h_in[kGroups];
  Rows<kGate> z[kStageLayers];      // of the stage's layers
  Rows<kResidual> h[kStageLayers];  // their inputs
  uint64_t layer_arrival[kGroups], skip_arrival[kGroups];
};

struct HeadMemory {
  static constexpr int kFragments = HiddenMatrix::kSharedFragments + OutputMatrix::kSharedFragments;
  uint4 weights[Most(kFragments, 1)];
  BFloat16 table[kTableOnChip ? kInputTaps * (kScalarInput ? 2 : kLevels) * kResidual : 8];
  Rows<kSkip> skip_in[kGroups];
  Rows<kHidden> y;
  float logits[kStreams][kOutputs + 4];
  int past[kGroups][kStreams][kReach];  // tokens, in a ring
  uint64_t skip_arrival[kGroups];
};

constexpr int kNeeded = Most(sizeof(StageMemory), sizeof(HeadMemory));
static_assert(kNeeded <= kSharedBytes && kNeeded > kSharedBytes - 2048, "plan.py counts the shared memory otherwise");

// The offset of a member from the start of a block's shared memory, which is the same in every block.
#define WAVENET_ADDRESS(Memory, member) (base_ + static_cast<Address>(__builtin_offsetof(Memory, member)))

// The streams and groups of this cluster.
struct Share {
  int first_group, groups;

  DEVICE explicit Share(const Params& p) {
    const int all = (p.batch + kStreams - 1) / kStreams;
    first_group = ClusterNumber() * p.groups_of_cluster;
    groups = Least(p.groups_of_cluster, all - first_group);
  }
  DEVICE int Stream(int group, int column) const { return (first_group + group) * kStreams + column; }
};

// Keeps kStageLayers neighbouring layers, and passes every sample of every group through them.
class Stage {
 public:
  DEVICE Stage(const Params& p, int stage)
      : p_(p),
        share_(p),
        memory_(*reinterpret_cast<StageMemory*>(SharedMemory())),
        base_(AddressOf(SharedMemory())),
        stage_(stage),
        first_(stage * kStageLayers),
        layers_(Least(kLayers - first_, kStageLayers)),
        warp_(ThreadNumber() / 32),
        row_(AccumulatorRow()),
        column_(AccumulatorColumn()) {
    uint4* room = memory_.weights;
    ahead_.Take(p.ahead + first_ * AheadMatrices::kFragments, layers_, room);
    current_.Take(p.current + first_ * CurrentMatrices::kFragments, layers_, room += AheadMatrices::kSharedFragments);
    residual_.Take(p.residual + first_ * ResidualMatrices::kFragments, layers_,
                   room += CurrentMatrices::kSharedFragments);
    past_.Take(p.past + first_ * PastMatrices::kFragments, layers_, room += ResidualMatrices::kSharedFragments);
    skip_.Take(p.skip + first_ * SkipMatrices::kFragments, layers_, room += PastMatrices::kSharedFragments);
    if (ThreadNumber() == 0) {
      for (int g = 0; g < kGroups; ++g) {
        InitMessages(LayerArrival(g));
        InitMessages(SkipArrival(g));
      }
      PublishBarriers();
      for (int g = 0; g < kGroups; ++g) {
        ExpectMessages(LayerArrival(g), LayerBytes());
        ExpectMessages(SkipArrival(g), kSkip * kStreams * sizeof(float));
      }
    }
    for (int g = 0; g < share_.groups; ++g) ReadPast(g, 0);
    ClusterBarrier();
  }

  DEVICE void Run() {
    for (int step = 0; step < p_.steps; ++step) {
      for (int g = 0; g < share_.groups; ++g) {
        PassLayers(g, step);
        PassSkips(g, step);
        WriteRings(g, step);
        BlockBarrier();
        ReadPast(g, step + 1);
      }
    }
  }

 private:
  // A stage's message: z of the layer before its first one, and that layer's input, rounded and not. The first stage gets
  // its first layer's input alone, not rounded, as each of the head's warps knows one stream only.
  DEVICE int LayerBytes() const {
    const int wide = kResidual * kStreams * static_cast<int>(sizeof(float));
    return stage_ == 0 ? wide : wide + (kGate + kResidual) * kStreams * static_cast<int>(sizeof(BFloat16));
  }
  DEVICE bool IsLast() const { return stage_ == kStages - 1; }
  DEVICE Address LayerArrival(int g) const {
    return WAVENET_ADDRESS(StageMemory, layer_arrival) + g * sizeof(uint64_t);
  }
  DEVICE Address SkipArrival(int g) const {
    return WAVENET_ADDRESS(StageMemory, skip_arrival) + g * sizeof(uint64_t);
  }

  DEVICE void PassLayers(int g, int step) {
    constexpr int kTurns = AheadMatrices::kTurns;
    const bool narrow = residual_.Has(0);  // this warp has channels of h; all have of z, unless there are few
    const int channel = 16 * warp_ + row_;
    uint32_t z_values[kGate / 8], h_values[kResidual / 8];
    float h[4];

    AwaitMessages(LayerArrival(g), step & 1, p_.patience);
    if (ThreadNumber() == 0) ExpectMessages(LayerArrival(g), LayerBytes());
    if (narrow) {
      UNROLL
      for (int n = 0; n < 4; ++n) h[n] = memory_.wide_h_in[g][channel + 8 * (n / 2)][column_ + n % 2];
    }
    if (stage_ == 0) {
      if (narrow) Put(memory_.h_in[g], channel, h);
      BlockBarrier();
    } else {
      LoadValues<kGate>(z_values, WAVENET_ADDRESS(StageMemory, z_in) + g * sizeof(Rows<kGate>));
    }
    LoadValues<kResidual>(h_values, WAVENET_ADDRESS(StageMemory, h_in) + g * sizeof(Rows<kResidual>));

    UNROLL
    for (int j = 0; j < kStageLayers; ++j) {
      if (j == layers_) break;
      const bool is_first = first_ + j == 0, leaves = j == layers_ - 1 && !IsLast();
      float a[kTurns][4], b[kTurns][4] = {};
      UNROLL
      for (int turn = 0; turn < kTurns; ++turn) {
        if (!ahead_.Has(turn)) break;
        const float4 known = memory_.known[g][j][turn][ThreadNumber()];
        a[turn][0] = known.x, a[turn][1] = known.y, a[turn][2] = known.z, a[turn][3] = known.w;
        current_.Multiply(j, turn, h_values, a[turn]);
        if (!is_first) ahead_.Multiply(j, turn, z_values, b[turn]);
      }
      float change[4] = {};
      if (narrow && !is_first) residual_.Multiply(j, 0, z_values, change);
      UNROLL
      for (int turn = 0; turn < kTurns; ++turn) {
        if (!ahead_.Has(turn)) break;
        const int gate = 8 * ahead_.TileOf(turn) + row_;
        const uint32_t z = Round(Gate(a[turn][0] + b[turn][0], a[turn][2] + b[turn][2]),
                                 Gate(a[turn][1] + b[turn][1], a[turn][3] + b[turn][3]));
        *reinterpret_cast<uint32_t*>(&memory_.z[j][gate][column_]) = z;
        if (leaves) Send(Next(WAVENET_ADDRESS(StageMemory, z_in)) + Narrow(g, kGate, gate), z, NextLayerArrival(g));
      }
      if (narrow) {
        const float* const bias = p_.residual_bias + (first_ + j) * kResidual + channel;
        UNROLL
        for (int n = 0; n < 4; ++n) h[n] += change[n] + bias[8 * (n / 2)];
        Put(memory_.h[j], channel, h);
        if (leaves) SendInput(g, channel, h);
      }
      BlockBarrier();
      if (j < layers_ - 1) {
        LoadValues<kGate>(z_values, WAVENET_ADDRESS(StageMemory, z) + j * sizeof(Rows<kGate>));
        LoadValues<kResidual>(h_values, WAVENET_ADDRESS(StageMemory, h) + j * sizeof(Rows<kResidual>));
      }
    }
  }

  // tanh(a) sigmoid(b), as sigmoid(b) = (1 + tanh(b / 2)) / 2.
  static DEVICE float Gate(float a, float b) { return Tanh(a) * (0.5f + 0.5f * Tanh(0.5f * b)); }

  DEVICE void Put(Rows<kResidual>& rows, int channel, const float h[4]) const {
    *reinterpret_cast<uint32_t*>(&rows[channel][column_]) = Round(h[0], h[1]);
    *reinterpret_cast<uint32_t*>(&rows[channel + 8][column_]) = Round(h[2], h[3]);
  }

  // Where a thread's two streams of a channel are in an inbox of groups of so many channels.
  DEVICE Address Narrow(int g, int channels, int channel) const {
    return ((g * channels + channel) * kStreams + column_) * sizeof(BFloat16);
  }
  DEVICE Address Wide(int g, int channels, int channel) const {
    return ((g * channels + channel) * kStreams + column_) * sizeof(float);
  }
  DEVICE Address Next(Address own) const { return InBlock(own, stage_ + 1); }
  DEVICE Address NextLayerArrival(int g) const { return Next(LayerArrival(g)); }

  DEVICE void SendInput(int g, int channel, const float h[4]) const {
    const Address narrow = Next(WAVENET_ADDRESS(StageMemory, h_in)), wide = Next(WAVENET_ADDRESS(StageMemory, wide_h_in));
    UNROLL
    for (int half = 0; half < 2; ++half) {
      const int row = channel + 8 * half;
      Send(narrow + Narrow(g, kResidual, row), Round(h[2 * half], h[2 * half + 1]), NextLayerArrival(g));
      Send(wide + Wide(g, kResidual, row), h[2 * half], h[2 * half + 1], NextLayerArrival(g));
    }
  }

  // Adds the skips of this stage's layers to the sum that passes by. The last stage sends what the head multiplies with.
  DEVICE void PassSkips(int g, int step) {
    if (!skip_.Has(0)) return;
    constexpr int kTurns = SkipMatrices::kTurns;
    float sum[kTurns][4] = {};
    UNROLL
    for (int j = 0; j < kStageLayers; ++j) {
      if (j == layers_) break;
      uint32_t z_values[kGate / 8];
      LoadValues<kGate>(z_values, WAVENET_ADDRESS(StageMemory, z) + j * sizeof(Rows<kGate>));
      UNROLL
      for (int turn = 0; turn < kTurns; ++turn) {
        if (skip_.Has(turn)) skip_.Multiply(j, turn, z_values, sum[turn]);
      }
    }
    if (stage_ > 0) {
      AwaitMessages(SkipArrival(g), step & 1, p_.patience);
      if (ThreadNumber() == 0) ExpectMessages(SkipArrival(g), kSkip * kStreams * sizeof(float));
    }
    UNROLL
    for (int turn = 0; turn < kTurns; ++turn) {
      if (!skip_.Has(turn)) break;
      UNROLL
      for (int half = 0; half < 2; ++half) {
        const int channel = 16 * skip_.TileOf(turn) + row_ + 8 * half;
        float first = sum[turn][2 * half], second = sum[turn][2 * half + 1];
        if (stage_ == 0) {
          first += p_.skip_bias[channel], second += p_.skip_bias[channel];
        } else {
          first += memory_.skip_in[g][channel][column_], second += memory_.skip_in[g][channel][column_ + 1];
        }
        if (IsLast()) {
          Send(InBlock(WAVENET_ADDRESS(HeadMemory, skip_in), kStages) + Narrow(g, kSkip, channel),
               Round(fmaxf(first, 0), fmaxf(second, 0)),
               InBlock(WAVENET_ADDRESS(HeadMemory, skip_arrival), kStages) + g * sizeof(uint64_t));
        } else {
          Send(Next(WAVENET_ADDRESS(StageMemory, skip_in)) + Wide(g, kSkip, channel), first, second,
               Next(SkipArrival(g)));
        }
      }
    }
  }

  // The row of a layer's ring that the step's input is written to; its oldest tap is still there. Others follow.
  DEVICE BFloat16* RingRow(int layer, int step, int tap, int stream) const {
    const int* const ring = p_.rings_of_layers + 3 * layer;
    const unsigned int row = (p_.integers[0] + step + tap * ring[2]) % ring[1] + ring[0];
    return p_.rings + (static_cast<uint64_t>(row) * p_.batch + stream) * kResidual;
  }

  // Writes this step's inputs of the layers, one warp per layer.
  DEVICE void WriteRings(int g, int step) const {
    const int stream = share_.Stream(g, row_);
    for (int j = warp_; j < layers_; j += kWarps) {
      uint32_t h_values[kResidual / 8];
      LoadValues<kResidual>(h_values, WAVENET_ADDRESS(StageMemory, h) + j * sizeof(Rows<kResidual>));
      if (stream >= p_.batch) continue;
      uint32_t* const to = reinterpret_cast<uint32_t*>(RingRow(first_ + j, step, 0, stream));
      UNROLL
      for (int n = 0; n < kResidual / 8; ++n) to[4 * n + column_ / 2] = h_values[n];
    }
  }

  // Computes what is known of a step's gates before its sample comes.
  DEVICE void ReadPast(int g, int step) {
    const int stream = share_.Stream(g, row_);
    const int sample = static_cast<int>(p_.integers[4]) + step;
    const int frame = Least(sample / p_.condition_hop, p_.frames - 1);
    UNROLL
    for (int j = 0; j < kStageLayers; ++j) {
      if (j == layers_) break;
      // A lane's four registers of a step are neighbours in the ring; weights.py orders the columns of `past` so.
      uint32_t values[(kTaps - 1) * kResidual / 8];
      UNROLL
      for (int tap = 0; tap < kTaps - 1; ++tap) {
        const uint4* const from =
            reinterpret_cast<const uint4*>(RingRow(first_ + j, step, tap, stream)) + column_ / 2 * (kResidual / 32);
        UNROLL
        for (int n = 0; n < kResidual / 32; ++n) {
          const uint4 four = stream < p_.batch ? from[n] : uint4{0, 0, 0, 0};
          uint32_t* const to = values + tap * (kResidual / 8) + 4 * n;
          to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
        }
      }
      UNROLL
      for (int turn = 0; turn < PastMatrices::kTurns; ++turn) {
        if (!past_.Has(turn)) break;
        const int group = p_.base_groups > 1 ? share_.first_group + g : 0;
        const int place = (frame * kLayers + first_ + j) * p_.base_groups + group;
        float4 known = p_.base[(static_cast<uint64_t>(place) * PastMatrices::kTiles + past_.TileOf(turn)) * 32 +
                               ThreadNumber() % 32];
        float sum[4] = {known.x, known.y, known.z, known.w};
        past_.Multiply(j, turn, values, sum);
        known.x = sum[0], known.y = sum[1], known.z = sum[2], known.w = sum[3];
        memory_.known[g][j][turn][ThreadNumber()] = known;
      }
    }
  }

  const Params& p_;
  const Share share_;
  StageMemory& memory_;
  const Address base_;
  const int stage_, first_, layers_, warp_, row_, column_;
  AheadMatrices ahead_;
  CurrentMatrices current_;
  ResidualMatrices residual_;
  PastMatrices past_;
  SkipMatrices skip_;
};

// Keeps both ends of the network: it embeds tokens for the first stage, and draws them from what the last one sends. Warp n
// has stream n of a group.
class Head {
 public:
  DEVICE explicit Head(const Params& p)
      : p_(p),
        share_(p),
        memory_(*reinterpret_cast<HeadMemory*>(SharedMemory())),
        base_(AddressOf(SharedMemory())),
        warp_(ThreadNumber() / 32),
        lane_(ThreadNumber() % 32),
        options_{p.floats[0], p.floats[1], static_cast<int>(p.integers[5])} {
    hidden_.Take(p.hidden, 1, memory_.weights);
    output_.Take(p.output, 1, memory_.weights + HiddenMatrix::kSharedFragments);
    table_ = p.table;
    if (kTableOnChip) {
      constexpr int kWords = sizeof(memory_.table) / sizeof(uint4);
      for (int n = ThreadNumber(); n < kWords; n += kThreads) {
        reinterpret_cast<uint4*>(memory_.table)[n] = reinterpret_cast<const uint4*>(p.table)[n];
      }
      table_ = memory_.table;
    }
    for (int g = 0; g < share_.groups; ++g) {
      for (int n = lane_; n < kReach; n += 32) {
        memory_.past[g][warp_][n] = IsReal(g) ? p.history[share_.Stream(g, warp_) * kReach + n] : -1;
      }
    }
    if (ThreadNumber() == 0) {
      for (int g = 0; g < kGroups; ++g) InitMessages(SkipArrival(g));
      PublishBarriers();
      for (int g = 0; g < kGroups; ++g) ExpectMessages(SkipArrival(g), kSkipBytes);
    }
    ClusterBarrier();
  }

  DEVICE void Run() {
    for (int g = 0; g < share_.groups; ++g) {
      float input[kChannels];
      StartInput(g, 0, 1, input);
      Embed(g, Token(g, 0, 0), input);
    }
    for (int step = 0; step < p_.steps; ++step) {
      for (int g = 0; g < share_.groups; ++g) PassSample(g, step);
    }
  }

 private:
  static constexpr int kChannels = kResidual / 32;  // of a lane: lane, lane + 32, ...
  static constexpr int kSkipBytes = kSkip * kStreams * static_cast<int>(sizeof(BFloat16));

  DEVICE bool IsReal(int g) const { return share_.Stream(g, warp_) < p_.batch; }
  DEVICE uint64_t Place(int g, int step) const {
    return static_cast<uint64_t>(share_.Stream(g, warp_)) * p_.steps + step;
  }
  DEVICE Address SkipArrival(int g) const { return WAVENET_ADDRESS(HeadMemory, skip_arrival) + g * sizeof(uint64_t); }

  DEVICE void PassSample(int g, int step) {
    // What is known before the sample comes.
    const bool is_real = IsReal(g);
    const Uniforms uniform(p_.integers[1], p_.integers[2], p_.integers[0] + step,
                           p_.integers[3] + share_.Stream(g, warp_));
    const int forced = is_real && p_.forced != nullptr ? p_.forced[Place(g, step)] : -1;
    float input[kChannels];
    StartInput(g, step + 1, 0, input);

    const bool has_arrived = AwaitMessages(SkipArrival(g), step & 1, p_.patience);
    if (ThreadNumber() == 0) ExpectMessages(SkipArrival(g), kSkipBytes);
    ComputeLogits(g);
    const float* const logits = memory_.logits[warp_];
    int token = forced;
    if (forced < 0) {
      token = kMixtures > 0 ? DrawFromMixture(logits, options_, Prediction(g, step, logits + 3 * kMixtures), uniform)
                            : Masses<kRealOutputs>::Draw(logits, options_, uniform.first);
    }
    if (step + 1 < p_.steps) Embed(g, token, input);
    WarpBarrier();
    if (lane_ == 0) memory_.past[g][warp_][step % kReach] = token;
    WarpBarrier();
    if (!is_real) return;
    if (lane_ == 0) p_.tokens[Place(g, step)] = has_arrived ? token : -1;
    if (p_.outputs != nullptr) {
      for (int n = lane_; n < kRealOutputs; n += 32) p_.outputs[Place(g, step) * kRealOutputs + n] = logits[n];
    }
  }

  DEVICE void ComputeLogits(int g) {
    const int row = AccumulatorRow(), column = AccumulatorColumn();
    {
      uint32_t values[kSkip / 8];
      LoadValues<kSkip>(values, WAVENET_ADDRESS(HeadMemory, skip_in) + g * sizeof(Rows<kSkip>));
      UNROLL
      for (int turn = 0; turn < HiddenMatrix::kTurns; ++turn) {
        if (!hidden_.Has(turn)) break;
        const int channel = 16 * hidden_.TileOf(turn) + row;
        const float low = p_.hidden_bias[channel], high = p_.hidden_bias[channel + 8];
        float sum[4] = {low, low, high, high};
        hidden_.Multiply(0, turn, values, sum);
        *reinterpret_cast<uint32_t*>(&memory_.y[channel][column]) = Round(fmaxf(sum[0], 0), fmaxf(sum[1], 0));
        *reinterpret_cast<uint32_t*>(&memory_.y[channel + 8][column]) = Round(fmaxf(sum[2], 0), fmaxf(sum[3], 0));
      }
    }
    BlockBarrier();
    uint32_t values[kHidden / 8];
    LoadValues<kHidden>(values, WAVENET_ADDRESS(HeadMemory, y));
    UNROLL
    for (int turn = 0; turn < OutputMatrix::kTurns; ++turn) {
      if (!output_.Has(turn)) break;
      const int level = 16 * output_.TileOf(turn) + row;
      const float low = p_.output_bias[level], high = p_.output_bias[level + 8];
      float sum[4] = {low, low, high, high};
      output_.Multiply(0, turn, values, sum);
      UNROLL
      for (int n = 0; n < 4; ++n) memory_.logits[column + n % 2][level + 8 * (n / 2)] = sum[n];
    }
    BlockBarrier();
  }

  // The token `age` before the newest one that is read at a step.
  DEVICE int Token(int g, int step, int age) const {
    return memory_.past[g][warp_][(step + kReach - 1 - age) % kReach];
  }

  DEVICE float Prediction(int g, int step, const float* coefficients) const {
    float sum = 0;
    for (int n = lane_; n < kPrediction; n += 32) {
      const int token = Token(g, step, n);
      if (token >= 0) sum += coefficients[n] * Expand(CodeValue(Least(token, kLevels - 1)));
    }
    UNROLL
    for (int mask = 16; mask > 0; mask /= 2) sum += ShuffleXor(sum, mask);
    return sum;
  }

  // Computes the share that a step's given inputs and all tokens but the newest have of the first layer's input. `age` is
  // that of the newest but one, counted as in Token from the step that is reached.
  DEVICE void StartInput(int g, int step, int age, float input[kChannels]) const {
    const int reached = age > 0 ? step : step - 1;
    const bool is_given = p_.inputs != nullptr && step < p_.steps && IsReal(g);
    UNROLL
    for (int n = 0; n < kChannels; ++n) {
      const int channel = lane_ + 32 * n;
      input[n] = p_.input_bias[channel] + (is_given ? p_.inputs[Place(g, step) * kResidual + channel] : 0.0f);
    }
    for (int tap = 1; tap < kInputTaps; ++tap) AddTap(tap, Token(g, reached, age + tap - 1), input);
  }

  DEVICE void AddTap(int tap, int token, float input[kChannels]) const {
    if (token < 0) return;
    token = Least(token, kLevels - 1);
    const BFloat16* const kernel = table_ + (kInputTaps - 1 - tap) * (kScalarInput ? 2 : kLevels) * kResidual;
    UNROLL
    for (int n = 0; n < kChannels; ++n) {
      const int channel = lane_ + 32 * n;
      if (kScalarInput) {
        const float u = CodeValue(token);
        input[n] += u * Widen(kernel[channel]) + Expand(u) * Widen(kernel[kResidual + channel]);
      } else {
        input[n] += Widen(kernel[token * kResidual + channel]);
      }
    }
  }

  DEVICE void Embed(int g, int token, float input[kChannels]) const {
    AddTap(0, token, input);
    const Address inbox = InBlock(WAVENET_ADDRESS(StageMemory, wide_h_in), 0);
    const Address arrival = InBlock(WAVENET_ADDRESS(StageMemory, layer_arrival), 0) + g * sizeof(uint64_t);
    UNROLL
    for (int n = 0; n < kChannels; ++n) {
      const int channel = lane_ + 32 * n;
      Send(inbox + ((g * kResidual + channel) * kStreams + warp_) * sizeof(float), Bits(input[n]), arrival);
    }
  }

  const Params& p_;
  const Share share_;
  HeadMemory& memory_;
  const Address base_;
  const int warp_, lane_;
  const Options options_;
  const BFloat16* table_;
  HiddenMatrix hidden_;
  OutputMatrix output_;
};

KERNEL Sample(GRID_CONSTANT Params p) {
  const int rank = RankInCluster();
  if (rank < kStages) {
    Stage(p, rank).Run();
  } else {
    Head(p).Run();
  }
  ClusterBarrier();  // no block ends while another may still send to it
}

}  // namespace wavenet

// Defines the network that the kernel is compiled for: plan.py passes every number as a macro.

#pragma once

namespace wavenet {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kStreams = 8;  // of a group, the columns of a tile

// Channels are padded to multiples of 32, the outputs too.
constexpr int kLayers = WAVENET_LAYERS, kTaps = WAVENET_TAPS;
constexpr int kResidual = WAVENET_RESIDUAL, kGate = WAVENET_GATE, kSkip = WAVENET_SKIP, kHidden = WAVENET_HIDDEN;
constexpr int kOutputs = WAVENET_OUTPUTS, kRealOutputs = WAVENET_REAL_OUTPUTS;

constexpr int kLevels = WAVENET_LEVELS, kInputTaps = WAVENET_INPUT_TAPS, kReach = WAVENET_REACH, kMu = WAVENET_MU;
constexpr bool kScalarInput = WAVENET_SCALAR_INPUT;
constexpr int kMixtures = WAVENET_MIXTURES, kPrediction = WAVENET_PREDICTION;  // no mixtures: a softmax

// The cluster: stages of so many layers each, and one block for the ends of the network.
constexpr int kStageLayers = WAVENET_STAGE_LAYERS, kStages = (kLayers + kStageLayers - 1) / kStageLayers;
constexpr int kGroups = WAVENET_GROUPS;  // the most that are in flight in a cluster

// How many matrices of each kind a block keeps in registers, and how many in registers or shared memory.
constexpr int kAheadInRegisters = WAVENET_AHEAD_IN_REGISTERS, kAheadOnChip = WAVENET_AHEAD_ON_CHIP;
constexpr int kCurrentInRegisters = WAVENET_CURRENT_IN_REGISTERS, kCurrentOnChip = WAVENET_CURRENT_ON_CHIP;
constexpr int kResidualInRegisters = WAVENET_RESIDUAL_IN_REGISTERS, kResidualOnChip = WAVENET_RESIDUAL_ON_CHIP;
constexpr int kPastOnChip = WAVENET_PAST_ON_CHIP, kSkipOnChip = WAVENET_SKIP_ON_CHIP;
constexpr int kHiddenInRegisters = WAVENET_HIDDEN_IN_REGISTERS, kHiddenOnChip = WAVENET_HIDDEN_ON_CHIP;
constexpr int kOutputInRegisters = WAVENET_OUTPUT_IN_REGISTERS, kOutputOnChip = WAVENET_OUTPUT_ON_CHIP;
constexpr bool kTableOnChip = WAVENET_TABLE_ON_CHIP;

constexpr int kSharedBytes = WAVENET_SHARED_BYTES;  // what plan.py expects the larger kind of block to need

}  // namespace wavenet

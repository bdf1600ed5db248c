// Defines the native kernels, which XLA calls on the CPU through its foreign function interface.

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "threads.h"
#include "wavenet.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace wavegen {
namespace {

// The numbers are the indices of INSTRUCTION_SETS in __init__.py.
enum class InstructionSet : std::int32_t {
  kGeneric = 0,
  kAvx2 = 1,
  kAvxVnni = 2,
  kAvx512 = 3,
  kAvx512Vnni = 4,
  kAmx = 5,
};

#if defined(__x86_64__)
// Returns whether there is a tile unit for bfloat16 whose registers Linux grants to this process on request.
bool HasTileUnit() {
#if defined(WAVEGEN_EMULATE_TILES)
  return true;
#elif defined(__linux__)
  constexpr unsigned kBFloat16 = 1u << 22, kTile = 1u << 24;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kBFloat16) && (d & kTile) &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

// Compilers before GCC 11 and Clang 12 do not know the name that __builtin_cpu_supports would need.
bool HasAvxVnni() {
#if defined(WAVEGEN_AVX_VNNI)
  constexpr unsigned kAvxVnni = 1u << 4;
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & kAvxVnni);
#else
  return false;
#endif
}
#endif

// Returns what the processor and the operating system offer to this process, a bit for each set.
std::int32_t InstructionSets() {
  std::int32_t sets = 0;
  const auto offer = [&sets](InstructionSet set) { sets |= 1 << static_cast<std::int32_t>(set); };
  offer(InstructionSet::kGeneric);
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    offer(InstructionSet::kAvx2);
    if (HasAvxVnni()) offer(InstructionSet::kAvxVnni);
  }
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    offer(InstructionSet::kAvx512);
    if (__builtin_cpu_supports("avx512vnni")) {
      offer(InstructionSet::kAvx512Vnni);
      if (HasTileUnit()) offer(InstructionSet::kAmx);
    }
  }
#endif
  return sets;
}

ffi::Error ReportInstructionSets(ffi::Result<ffi::BufferR0<ffi::S32>> found) {
  *found->typed_data() = InstructionSets();
  return ffi::Error::Success();
}

struct Engine {
  Outcome (*generate)(const Call& call, bool bfloat16, int threads);
  Outcome (*generate_int8)(const Call& call, int threads);
  Peaks (*measure_peaks)(long bytes);
};

Engine EngineFor(std::int64_t instruction_set) {
#if defined(__x86_64__)
  switch (static_cast<InstructionSet>(instruction_set)) {
    case InstructionSet::kAmx:
      return {amx::Generate, amx::GenerateInt8, amx::MeasurePeaks};
    case InstructionSet::kAvx512Vnni:
      return {avx512::Generate, avx512_vnni::GenerateInt8, avx512::MeasurePeaks};
    case InstructionSet::kAvx512:
      return {avx512::Generate, avx512::GenerateInt8, avx512::MeasurePeaks};
    case InstructionSet::kAvxVnni:
#if defined(WAVEGEN_AVX_VNNI)
      return {avx2::Generate, avx_vnni::GenerateInt8, avx2::MeasurePeaks};
#endif
    case InstructionSet::kAvx2:
      return {avx2::Generate, avx2::GenerateInt8, avx2::MeasurePeaks};
    case InstructionSet::kGeneric:
      break;
  }
#endif
  return {generic::Generate, generic::GenerateInt8, generic::MeasurePeaks};
}

ffi::Error MeasurePeaks(ffi::Result<ffi::BufferR1<ffi::F32>> found, std::int64_t instruction_set, std::int64_t bytes) {
  const Peaks peaks = EngineFor(instruction_set).measure_peaks(static_cast<long>(bytes));
  found->typed_data()[0] = static_cast<float>(peaks.operations);
  found->typed_data()[1] = static_cast<float>(peaks.bytes);
  return ffi::Error::Success();
}

// An array without elements stands for one that was not given.
template <ffi::DataType dtype, std::size_t rank>
auto DataOrNull(const ffi::Buffer<dtype, rank>& buffer) -> decltype(buffer.typed_data()) {
  return buffer.element_count() > 0 ? buffer.typed_data() : nullptr;
}

// Generates; api.py has checked shapes and dtypes, and cpu.py has converted what is not in the types below.
ffi::Error GenerateWaveNet(
    ffi::AnyBuffer input_table, ffi::AnyBuffer dilated, ffi::AnyBuffer conditions, ffi::AnyBuffer residuals,
    ffi::AnyBuffer skips, ffi::AnyBuffer hiddens, ffi::AnyBuffer output, ffi::BufferR1<ffi::F32> input_bias,
    ffi::BufferR2<ffi::F32> dilated_bias, ffi::BufferR2<ffi::F32> residual_bias, ffi::BufferR1<ffi::F32> skip_bias,
    ffi::BufferR1<ffi::F32> hidden_bias, ffi::BufferR1<ffi::F32> output_bias, ffi::BufferR2<ffi::F32> level_values,
    ffi::AnyBuffer rings, ffi::BufferR2<ffi::S32> history, ffi::BufferR0<ffi::S32> position,
    ffi::BufferR1<ffi::U32> key, ffi::BufferR3<ffi::F32> inputs, ffi::BufferR3<ffi::F32> condition,
    ffi::BufferR0<ffi::S32> condition_offset, ffi::BufferR2<ffi::S32> forced, ffi::BufferR0<ffi::F32> temperature,
    ffi::BufferR0<ffi::S32> top_k, ffi::BufferR0<ffi::F32> top_p, ffi::BufferR0<ffi::S32> row_offset,
    ffi::Result<ffi::BufferR2<ffi::S32>> tokens, ffi::Result<ffi::AnyBuffer> rings_out,
    ffi::Result<ffi::BufferR2<ffi::S32>> history_out, ffi::Result<ffi::BufferR3<ffi::F32>> logits,
    ffi::Span<const std::int64_t> dilations, bool scalar_input, bool mixture, std::int64_t mixtures,
    std::int64_t linear_prediction, std::int64_t mu, std::int64_t levels, std::int64_t condition_hop,
    bool int8, std::int64_t threads, std::int64_t instruction_set) {
  const auto size = [](const ffi::AnyBuffer& buffer, int axis) { return static_cast<int>(buffer.dimensions()[axis]); };
  Call call{};
  Network& net = call.network;
  net.layers = size(dilated, 0);
  net.taps = size(dilated, 1);
  net.residual = size(dilated, 2);
  net.gate = size(dilated, 3) / 2;
  net.skip = size(hiddens, 0);
  net.hidden = size(hiddens, 1);
  net.outputs = size(output, 1);
  net.levels = static_cast<int>(levels);
  net.input_taps = size(input_table, 0);
  net.condition = size(conditions, 1);
  net.scalar_input = scalar_input;
  net.dilations = dilations.begin();
  net.input_table = input_table.untyped_data();
  net.dilated = dilated.untyped_data();
  net.conditions = conditions.untyped_data();
  net.residuals = residuals.untyped_data();
  net.skips = skips.untyped_data();
  net.hiddens = hiddens.untyped_data();
  net.output = output.untyped_data();
  net.input_bias = input_bias.typed_data();
  net.dilated_bias = dilated_bias.typed_data();
  net.residual_bias = residual_bias.typed_data();
  net.skip_bias = skip_bias.typed_data();
  net.hidden_bias = hidden_bias.typed_data();
  net.output_bias = output_bias.typed_data();
  net.level_values = level_values.typed_data();

  call.head = {mixture, static_cast<int>(mixtures), static_cast<int>(linear_prediction), static_cast<int>(mu)};
  call.draw = {{key.typed_data()[0], key.typed_data()[1]},
               temperature.typed_data()[0],
               top_p.typed_data()[0],
               top_k.typed_data()[0]};
  call.batch = static_cast<int>(tokens->dimensions()[0]);
  call.steps = static_cast<int>(tokens->dimensions()[1]);
  call.reach = static_cast<int>(history.dimensions()[1]);
  call.frames = static_cast<int>(condition.dimensions()[1]);
  call.condition_hop = condition_hop;
  call.condition_offset = condition_offset.typed_data()[0];
  call.position = static_cast<std::uint32_t>(position.typed_data()[0]);
  call.row_offset = static_cast<std::uint32_t>(row_offset.typed_data()[0]);
  call.inputs = DataOrNull(inputs);
  call.condition = DataOrNull(condition);
  call.forced = DataOrNull(forced);
  call.rings = rings_out->untyped_data();
  call.history = history_out->typed_data();
  call.tokens = tokens->typed_data();
  call.logits = DataOrNull(*logits);

  // The new state has a donated state's own memory; any other state is copied.
  if (call.rings != rings.untyped_data()) std::memcpy(call.rings, rings.untyped_data(), rings.size_bytes());
  if (call.history != history.typed_data()) std::memcpy(call.history, history.typed_data(), history.size_bytes());

  const std::int64_t most = call.batch < kMaxThreads ? call.batch : kMaxThreads;
  const int used = static_cast<int>(threads < most ? threads : most);
  const bool bfloat16 = dilated.element_type() == ffi::DataType::BF16;
  const Engine engine = EngineFor(instruction_set);
  switch (int8 ? engine.generate_int8(call, used) : engine.generate(call, bfloat16, used)) {
    case Outcome::kNotFinite:
      return ffi::Error::InvalidArgument("the WaveNet's weights hold NaN or infinity; expected finite numbers: load "
                                         "an earlier checkpoint");
    case Outcome::kNoMemory:
      return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                        "no memory for the WaveNet's packed weights and activations; generate fewer streams at once, "
                        "or free some memory");
    case Outcome::kDone:
      return ffi::Error::Success();
  }
  return ffi::Error::Internal("unknown outcome");
}

}  // namespace
}  // namespace wavegen

XLA_FFI_DEFINE_HANDLER_SYMBOL(wavegen_instruction_sets, wavegen::ReportInstructionSets,
                              ffi::Ffi::Bind().Ret<ffi::BufferR0<ffi::S32>>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(wavegen_peaks, wavegen::MeasurePeaks,
                              ffi::Ffi::Bind()
                                  .Ret<ffi::BufferR1<ffi::F32>>()
                                  .Attr<std::int64_t>("instruction_set")
                                  .Attr<std::int64_t>("bytes"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(wavegen_wavenet_generate, wavegen::GenerateWaveNet,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::AnyBuffer>()               // input_table
                                  .Arg<ffi::AnyBuffer>()               // dilated
                                  .Arg<ffi::AnyBuffer>()               // conditions
                                  .Arg<ffi::AnyBuffer>()               // residuals
                                  .Arg<ffi::AnyBuffer>()               // skips
                                  .Arg<ffi::AnyBuffer>()               // hiddens
                                  .Arg<ffi::AnyBuffer>()               // output
                                  .Arg<ffi::BufferR1<ffi::F32>>()      // input_bias
                                  .Arg<ffi::BufferR2<ffi::F32>>()      // dilated_bias
                                  .Arg<ffi::BufferR2<ffi::F32>>()      // residual_bias
                                  .Arg<ffi::BufferR1<ffi::F32>>()      // skip_bias
                                  .Arg<ffi::BufferR1<ffi::F32>>()      // hidden_bias
                                  .Arg<ffi::BufferR1<ffi::F32>>()      // output_bias
                                  .Arg<ffi::BufferR2<ffi::F32>>()      // level_values
                                  .Arg<ffi::AnyBuffer>()               // rings
                                  .Arg<ffi::BufferR2<ffi::S32>>()      // history
                                  .Arg<ffi::BufferR0<ffi::S32>>()      // position
                                  .Arg<ffi::BufferR1<ffi::U32>>()      // key
                                  .Arg<ffi::BufferR3<ffi::F32>>()      // inputs
                                  .Arg<ffi::BufferR3<ffi::F32>>()      // condition
                                  .Arg<ffi::BufferR0<ffi::S32>>()      // condition_offset
                                  .Arg<ffi::BufferR2<ffi::S32>>()      // forced
                                  .Arg<ffi::BufferR0<ffi::F32>>()      // temperature
                                  .Arg<ffi::BufferR0<ffi::S32>>()      // top_k
                                  .Arg<ffi::BufferR0<ffi::F32>>()      // top_p
                                  .Arg<ffi::BufferR0<ffi::S32>>()      // row_offset
                                  .Ret<ffi::BufferR2<ffi::S32>>()      // tokens
                                  .Ret<ffi::AnyBuffer>()               // rings
                                  .Ret<ffi::BufferR2<ffi::S32>>()      // history
                                  .Ret<ffi::BufferR3<ffi::F32>>()      // logits
                                  .Attr<ffi::Span<const std::int64_t>>("dilations")
                                  .Attr<bool>("scalar_input")
                                  .Attr<bool>("mixture")
                                  .Attr<std::int64_t>("mixtures")
                                  .Attr<std::int64_t>("linear_prediction")
                                  .Attr<std::int64_t>("mu")
                                  .Attr<std::int64_t>("levels")
                                  .Attr<std::int64_t>("condition_hop")
                                  .Attr<bool>("int8")
                                  .Attr<std::int64_t>("threads")
                                  .Attr<std::int64_t>("instruction_set"));

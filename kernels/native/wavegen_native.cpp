// Native kernels, called by XLA on the CPU through its foreign function interface.

#include <cstdint>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

// Numbered as INSTRUCTION_SETS in __init__.py.
enum class InstructionSet : std::int32_t { kGeneric = 0, kAvx2 = 1, kAvx512 = 2 };

// The widest vectors that the processor and the operating system offer to this process.
InstructionSet BestInstructionSet() {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    return InstructionSet::kAvx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return InstructionSet::kAvx2;
  }
#endif
  return InstructionSet::kGeneric;
}

ffi::Error ReportInstructionSet(ffi::Result<ffi::BufferR0<ffi::S32>> found) {
  *found->typed_data() = static_cast<std::int32_t>(BestInstructionSet());
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(wavegen_instruction_set, ReportInstructionSet,
                              ffi::Ffi::Bind().Ret<ffi::BufferR0<ffi::S32>>());

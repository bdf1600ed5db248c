// Launches a kernel that was compiled for the GPU at hand, with clusters of blocks, on XLA's stream.
//
// This is compiled without CUDA: the driver's library is opened when a GPU is used, and the few of its types that are
// needed are declared here, as cuda.h has had them since CUDA 12.0.

#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace wavegen {
namespace {

typedef int CUresult;
typedef struct CUctx_st* CUcontext;
typedef struct CUmod_st* CUmodule;
typedef struct CUfunc_st* CUfunction;
typedef struct CUstream_st* CUstream;
constexpr int kMaxDynamicSharedBytes = 8;  // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
constexpr int kClusterDimension = 4;       // CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION

struct LaunchAttribute {
  int id;
  char padding[4];
  union {
    char whole[64];
    unsigned cluster[3];
  } value;
};
static_assert(sizeof(LaunchAttribute) == 72, "CUlaunchAttribute has 72 bytes");

struct LaunchConfiguration {
  unsigned grid[3], block[3], shared_bytes;
  CUstream stream;
  LaunchAttribute* attributes;
  unsigned attribute_count;
};
static_assert(sizeof(LaunchConfiguration) == 56, "CUlaunchConfig has 56 bytes");

// The functions of the driver that are used.
struct Driver {
  std::string error;  // why there is none, or empty
  CUresult (*GetErrorString)(CUresult, const char**) = nullptr;
  CUresult (*StreamGetCtx)(CUstream, CUcontext*) = nullptr;
  CUresult (*CtxPushCurrent)(CUcontext) = nullptr;
  CUresult (*CtxPopCurrent)(CUcontext*) = nullptr;
  CUresult (*ModuleLoadData)(CUmodule*, const void*) = nullptr;
  CUresult (*ModuleGetFunction)(CUfunction*, CUmodule, const char*) = nullptr;
  CUresult (*FuncSetAttribute)(CUfunction, int, int) = nullptr;
  CUresult (*MemcpyDtoDAsync)(std::uint64_t, std::uint64_t, std::size_t, CUstream) = nullptr;
  CUresult (*LaunchKernelEx)(const LaunchConfiguration*, CUfunction, void**, void**) = nullptr;

  static const Driver& Get() {
    static const Driver driver;
    return driver;
  }

 private:
  Driver() {
    void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      error = std::string("the CUDA driver cannot be opened: ") + dlerror();
      return;
    }
    const auto find = [&](const char* name, auto* function) {
      *reinterpret_cast<void**>(function) = dlsym(library, name);
      if (*function == nullptr && error.empty()) error = std::string("the CUDA driver is too old, it lacks ") + name;
    };
    find("cuGetErrorString", &GetErrorString);
    find("cuStreamGetCtx", &StreamGetCtx);
    find("cuCtxPushCurrent_v2", &CtxPushCurrent);
    find("cuCtxPopCurrent_v2", &CtxPopCurrent);
    find("cuModuleLoadData", &ModuleLoadData);
    find("cuModuleGetFunction", &ModuleGetFunction);
    find("cuFuncSetAttribute", &FuncSetAttribute);
    find("cuMemcpyDtoDAsync_v2", &MemcpyDtoDAsync);
    find("cuLaunchKernelEx", &LaunchKernelEx);
  }
};

ffi::Error Failed(const char* what, CUresult result) {
  const char* text = nullptr;
  Driver::Get().GetErrorString(result, &text);
  return ffi::Error::Internal(std::string("CUDA cannot ") + what + ": " + (text != nullptr ? text : "unknown error"));
}

// Makes the stream's context current while it lives.
class Current {
 public:
  explicit Current(CUstream stream) {
    result_ = Driver::Get().StreamGetCtx(stream, &context_);
    if (result_ == 0) result_ = Driver::Get().CtxPushCurrent(context_);
  }
  Current(const Current&) = delete;
  ~Current() {
    CUcontext popped;
    if (result_ == 0) Driver::Get().CtxPopCurrent(&popped);
  }
  CUresult result() const { return result_; }
  CUcontext context() const { return context_; }

 private:
  CUcontext context_ = nullptr;
  CUresult result_;
};

// Returns the kernel of a file of machine code, which is loaded once for each context and never unloaded.
ffi::ErrorOr<CUfunction> Load(CUcontext context, const std::string& file, const std::string& entry, int shared_bytes) {
  static std::mutex mutex;
  static std::map<std::pair<CUcontext, std::string>, CUfunction> loaded;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto known = loaded.find({context, file});
  if (known != loaded.end()) return known->second;
  std::ifstream stream(file, std::ios::binary);
  const std::vector<char> code((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
  if (code.empty()) return ffi::Unexpected(ffi::Error::Internal("cannot read the compiled kernel " + file));
  const Driver& driver = Driver::Get();
  CUmodule module;
  CUfunction function;
  if (const CUresult result = driver.ModuleLoadData(&module, code.data())) {
    return ffi::Unexpected(Failed("load the compiled kernel", result));
  }
  if (const CUresult result = driver.ModuleGetFunction(&function, module, entry.c_str())) {
    return ffi::Unexpected(Failed("find the kernel in its file", result));
  }
  if (const CUresult result = driver.FuncSetAttribute(function, kMaxDynamicSharedBytes, shared_bytes)) {
    return ffi::Unexpected(Failed("give the kernel its shared memory", result));
  }
  loaded[{context, file}] = function;
  return function;
}

// The kernel's only parameter is a struct: pointers of all arguments, of all results, then 32-bit numbers. An array without
// elements becomes a null pointer. `kept` is the argument whose memory a result takes over, `keeper` that result.
ffi::Error Launch(CUstream stream, ffi::RemainingArgs arguments, ffi::RemainingRets results, std::string_view file,
                  std::string_view entry, ffi::Span<const std::int64_t> numbers, std::int64_t kept,
                  std::int64_t keeper, std::int64_t clusters, std::int64_t blocks, std::int64_t threads,
                  std::int64_t shared_bytes) {
  const Driver& driver = Driver::Get();
  if (!driver.error.empty()) return ffi::Error(ffi::ErrorCode::kUnavailable, driver.error);
  const Current current(stream);
  if (current.result() != 0) return Failed("use XLA's stream", current.result());
  const ffi::ErrorOr<CUfunction> function =
      Load(current.context(), std::string(file), std::string(entry), static_cast<int>(shared_bytes));
  if (function.has_error()) return function.error();

  std::vector<std::uint64_t> parameter;
  for (std::size_t n = 0; n < arguments.size(); ++n) {
    const auto array = arguments.get<ffi::AnyBuffer>(n);
    if (array.has_error()) return array.error();
    parameter.push_back(array->element_count() > 0 ? reinterpret_cast<std::uint64_t>(array->untyped_data()) : 0);
  }
  for (std::size_t n = 0; n < results.size(); ++n) {
    auto array = results.get<ffi::AnyBuffer>(n);
    if (array.has_error()) return array.error();
    ffi::AnyBuffer to = **array;
    parameter.push_back(to.element_count() > 0 ? reinterpret_cast<std::uint64_t>(to.untyped_data()) : 0);
    if (static_cast<std::int64_t>(n) == keeper && parameter.back() != parameter[kept]) {
      if (const CUresult result =
              driver.MemcpyDtoDAsync(parameter.back(), parameter[kept], to.size_bytes(), stream)) {
        return Failed("copy the state", result);
      }
    }
  }
  for (std::size_t n = 0; n < numbers.size(); n += 2) {
    const std::uint32_t low = static_cast<std::uint32_t>(numbers.begin()[n]);
    const std::uint32_t high = n + 1 < numbers.size() ? static_cast<std::uint32_t>(numbers.begin()[n + 1]) : 0;
    parameter.push_back(low | static_cast<std::uint64_t>(high) << 32);
  }

  LaunchAttribute cluster = {kClusterDimension, {}, {}};
  cluster.value.cluster[0] = static_cast<unsigned>(blocks);
  cluster.value.cluster[1] = cluster.value.cluster[2] = 1;
  const LaunchConfiguration configuration = {{static_cast<unsigned>(clusters * blocks), 1, 1},
                                             {static_cast<unsigned>(threads), 1, 1},
                                             static_cast<unsigned>(shared_bytes),
                                             stream,
                                             &cluster,
                                             1};
  void* parameters[] = {parameter.data()};
  if (const CUresult result = driver.LaunchKernelEx(&configuration, *function, parameters, nullptr)) {
    return Failed("launch the kernel", result);
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace wavegen

XLA_FFI_DEFINE_HANDLER_SYMBOL(wavegen_cuda_launch, wavegen::Launch,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::PlatformStream<wavegen::CUstream>>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<std::string_view>("file")
                                  .Attr<std::string_view>("entry")
                                  .Attr<ffi::Span<const std::int64_t>>("numbers")
                                  .Attr<std::int64_t>("kept")
                                  .Attr<std::int64_t>("keeper")
                                  .Attr<std::int64_t>("clusters")
                                  .Attr<std::int64_t>("blocks")
                                  .Attr<std::int64_t>("threads")
                                  .Attr<std::int64_t>("shared_bytes"));

// Returns why no GPU can be used, in one line, or an empty text.
extern "C" const char* wavegen_cuda_error() { return wavegen::Driver::Get().error.c_str(); }

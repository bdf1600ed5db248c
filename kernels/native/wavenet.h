// Defines what a call of the WaveNet sampler passes to an engine: plain pointers and sizes, which are already checked.
//
// Arrays are dense and row-major. Letters are as in shapes.py: L layers, K taps, R residual, G gate, S skip, H hidden
// channels, O outputs, V levels, J input taps, C condition channels, B streams, T steps, F frames.

#pragma once

#include <cstdint>

namespace wavegen {

struct Network {
  int layers, taps, residual, gate, skip, hidden, outputs, levels, input_taps, condition;
  bool scalar_input;
  const std::int64_t* dilations;  // [L]

  // These are in the weights' dtype, which is float32 where they are multiplied as bytes.
  const void* input_table;  // [J, V, R], or [J, 2, R] over (code value, amplitude)
  const void* dilated;      // [L, K, R, 2 G]
  const void* conditions;   // [L, C, 2 G]
  const void* residuals;    // [L, G, R]
  const void* skips;        // [L, G, S]
  const void* hiddens;      // [S, H]
  const void* output;       // [H, O]

  // These are float32.
  const float* input_bias;      // [R]
  const float* dilated_bias;    // [L, 2 G]
  const float* residual_bias;   // [L, R]
  const float* skip_bias;       // [S]
  const float* hidden_bias;     // [H]
  const float* output_bias;     // [O]
  const float* level_values;    // [V, 2]: code value and amplitude; read by scalar inputs and linear prediction
};

struct Head {
  bool mixture;
  int mixtures, linear_prediction, mu;
};

struct Draw {
  std::uint32_t key[2];
  float temperature, top_p;
  int top_k;
};

struct Call {
  Network network;
  Head head;
  Draw draw;
  int batch, steps, reach, frames, condition_offset;
  std::int64_t condition_hop;
  std::uint32_t position, row_offset;
  const float* inputs;                // [B, T, R], or null
  const float* condition;             // [B, F, C], or null
  const std::int32_t* forced;         // [B, T], or null
  void* rings;                        // [rows, B, R] in the weights' dtype; read and written
  std::int32_t* history;              // [B, reach]; read and written
  std::int32_t* tokens;               // [B, T]; written
  float* logits;                      // [B, T, O]; written, or null
};

enum class Outcome { kDone, kNotFinite, kNoMemory };

// Rates of one core: floating-point operations per second, and bytes per second of reading a working set in order.
struct Peaks {
  double operations, bytes;
};

// There is one engine per instruction set; `threads` share the streams. GenerateInt8 reads float32 weights, and
// multiplies them as bytes.
#define WAVEGEN_DECLARE_INT8_ENGINE(name)                             \
  namespace name {                                                    \
  Outcome GenerateInt8(const Call& call, int threads);                \
  }
#define WAVEGEN_DECLARE_ENGINE(name)                                  \
  WAVEGEN_DECLARE_INT8_ENGINE(name)                                   \
  namespace name {                                                    \
  Outcome Generate(const Call& call, bool bfloat16, int threads);     \
  Peaks MeasurePeaks(long bytes);                                     \
  }

WAVEGEN_DECLARE_ENGINE(generic)
#if defined(__x86_64__)
WAVEGEN_DECLARE_ENGINE(avx2)
#if defined(WAVEGEN_AVX_VNNI)
WAVEGEN_DECLARE_INT8_ENGINE(avx_vnni)
#endif
WAVEGEN_DECLARE_ENGINE(avx512)
WAVEGEN_DECLARE_INT8_ENGINE(avx512_vnni)
WAVEGEN_DECLARE_ENGINE(amx)
#endif
#undef WAVEGEN_DECLARE_ENGINE
#undef WAVEGEN_DECLARE_INT8_ENGINE

}  // namespace wavegen

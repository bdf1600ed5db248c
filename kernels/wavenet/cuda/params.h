// Defines what a launch passes to the kernel: pointers in the order of op.py's ARGUMENTS and RESULTS, then numbers in
// the order of its NUMBERS. kernels/native/cuda_launch.cpp fills it by these orders and knows no name.
//
// Arrays are dense. Letters are as in shapes.py: L layers, T steps, B streams, F frames; "fragments" are matrices in the
// order in which threads hold them, see fragments.h.

#pragma once

namespace wavenet {

struct Params {
  const uint4* ahead;           // [L] fragments: residual of the layer before times current; of layer 0 zeros
  const uint4* current;         // [L] fragments: the newest tap
  const uint4* past;            // [L] fragments: the older taps, side by side
  const uint4* residual;        // [L] fragments, of the layer before; of layer 0 zeros
  const uint4* skip;            // [L] fragments
  const uint4* hidden;          // fragments
  const uint4* output;          // fragments
  const float* residual_bias;   // [L, R], of the layer before; of layer 0 zeros
  const float* skip_bias;       // [S]
  const float* hidden_bias;     // [H]
  const float* output_bias;     // [O]
  const float* input_bias;      // [R]
  const BFloat16* table;        // [J, V, R], or [J, 2, R] over (code value, amplitude)
  const float4* base;           // [F, L, groups or 1, tile, lane]: biases and conditions of the gates, as accumulators
  const int* rings_of_layers;   // [L, 3]: first row, rows, dilation
  const int* history;           // [B, reach], the newest last
  const unsigned int* integers; // position, two words of the key, row offset, condition offset, top_k
  const float* floats;          // temperature, top_p
  const float* inputs;          // [B, T, R], or null
  const int* forced;            // [B, T], negative where a token is drawn, or null
  const BFloat16* rings_before; // [rows, B, R], the memory of `rings`

  int* tokens;      // [B, T]
  BFloat16* rings;  // [rows, B, R]
  float* outputs;   // [B, T, real outputs], or null

  int batch, steps, groups_of_cluster, frames, base_groups, condition_hop;
  int patience;  // cycles after which a wait is given up and the token is -1; 0: the kernel stops with an error
};

}  // namespace wavenet

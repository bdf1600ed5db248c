// Gives the kernel its few primitives in CUDA's own terms. The tests give it the same ones on a CPU.

#pragma once

typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;

#define DEVICE __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#define KERNEL extern "C" __global__ void __launch_bounds__(wavenet::kThreads, 1)
#define GRID_CONSTANT const __grid_constant__

namespace wavenet {

DEVICE constexpr int Least(int a, int b) { return a < b ? a : b; }
DEVICE constexpr int Most(int a, int b) { return a > b ? a : b; }

struct BFloat16 {
  uint16_t bits;
};

typedef uint32_t Address;  // in the shared memory of this block, or of one of its cluster

DEVICE int ThreadNumber() { return static_cast<int>(threadIdx.x); }
DEVICE int ClusterNumber() {
  uint32_t n;
  asm("mov.u32 %0, %%clusterid.x;" : "=r"(n));
  return static_cast<int>(n);
}
DEVICE int RankInCluster() {
  uint32_t n;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(n));
  return static_cast<int>(n);
}
DEVICE uint8_t* SharedMemory() {
  extern __shared__ __align__(1024) uint8_t memory[];
  return memory;
}
DEVICE Address AddressOf(const void* shared) { return static_cast<Address>(__cvta_generic_to_shared(shared)); }
DEVICE Address InBlock(Address own, int rank) {
  Address other;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(other) : "r"(own), "r"(rank));
  return other;
}

// Barriers of threads.
DEVICE void WarpBarrier() { __syncwarp(); }
DEVICE void BlockBarrier() { __syncthreads(); }
DEVICE void ClusterBarrier() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Barriers of messages: a phase ends when one thread has said how many bytes it brings and these bytes have arrived. The
// wait acquires at the scope of the block, as CUTLASS's ClusterBarrier does: messages are shared memory, which no cache
// holds, and an acquire at the cluster's scope would empty the first-level cache.
DEVICE void InitMessages(Address barrier) {
  asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(barrier) : "memory");
}
DEVICE void PublishBarriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
DEVICE void ExpectMessages(Address barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
// Returns whether they have arrived within `patience` cycles. Without one (0) it waits for about a second, which nothing
// takes that works, and then stops the kernel with an error: a GPU must not hang.
DEVICE bool AwaitMessages(Address barrier, int parity, uint32_t patience) {
  const uint32_t start = static_cast<uint32_t>(clock());
  for (;;) {
    uint32_t arrived;
    asm volatile(
        "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
        : "=r"(arrived)
        : "r"(barrier), "r"(parity)
        : "memory");
    if (arrived) return true;
    if (static_cast<uint32_t>(clock()) - start > (patience > 0 ? patience : 1u << 31)) {
      if (patience == 0) __trap();
      return false;
    }
  }
}
DEVICE void Send(Address to, uint32_t word, Address barrier) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(to), "r"(word),
               "r"(barrier)
               : "memory");
}
DEVICE void Send(Address to, float first, float second, Address barrier) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.b32 [%0], {%1, %2}, [%3];" ::"r"(to),
               "r"(__float_as_uint(first)), "r"(__float_as_uint(second)), "r"(barrier)
               : "memory");
}

// Exchange within a warp.
DEVICE float ShuffleXor(float x, int mask) { return __shfl_xor_sync(~0u, x, mask); }
DEVICE float ShuffleUp(float x, int distance) { return __shfl_up_sync(~0u, x, distance); }
DEVICE float Shuffle(float x, int lane) { return __shfl_sync(~0u, x, lane); }
DEVICE uint32_t WarpSum(uint32_t x) { return __reduce_add_sync(~0u, x); }
DEVICE uint32_t WarpLeast(uint32_t x) { return __reduce_min_sync(~0u, x); }
DEVICE uint32_t WarpMost(uint32_t x) { return __reduce_max_sync(~0u, x); }

// Tensor cores: c += a b, of 16 x 16 by 16 x 8 values of bfloat16.
DEVICE void MultiplyTile(float c[4], uint4 a, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}
// Each lane names a row of 8 values; four 8 x 8 matrices come back, each lane with a column's two rows of each.
DEVICE void LoadTransposed(uint32_t to[4], Address row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(row)
               : "memory");
}

// Arithmetic.
DEVICE uint32_t Bits(float x) { return __float_as_uint(x); }
DEVICE uint32_t Round(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
DEVICE float Widen(BFloat16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }
DEVICE float Tanh(float x) {
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
DEVICE float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace wavenet

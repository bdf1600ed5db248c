// Gives the kernel its primitives on a CPU. Every thread of a cluster is a fiber; the scheduler resumes warps in random
// order, lets some sleep, and delivers messages between blocks late and in random order.
//
// What it finds: deadlocks, reads before a message or a barrier, writes over what is still read, messages astray, wrong
// counts of bytes. Shared memory starts as NaN. It does not model the caches and the order of memory of a GPU.
//
// A fault can be planted at a place in the source where a primitive is used: that barrier, wait or announcement is left
// out, or changed. The tests plant one at every place in turn.

#pragma once

#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <vector>

struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

#define DEVICE inline
#define UNROLL
#define KERNEL static void
#define GRID_CONSTANT const
#define SITE int site = __builtin_LINE()

namespace wavenet {

DEVICE constexpr int Least(int a, int b) { return a < b ? a : b; }
DEVICE constexpr int Most(int a, int b) { return a > b ? a : b; }

struct BFloat16 {
  uint16_t bits;
};

typedef uint32_t Address;  // the block's number plus one in the upper 8 bits; zero there is one's own block

namespace emulator {

enum Outcome { kDone, kDeadlock, kAstray, kCountedWrong };
enum Kind { kBarrier, kWait, kExpect, kSend };
// What is wrong at the faulty place: it is left out, its parity is flipped, it is off by one element.
enum Fault { kNone, kLeftOut, kFlipped, kShifted };

struct Lane {
  float c[4], x;
  uint4 a;
  uint32_t b[2], words[4], word;
  Address row;
};
struct Warp {
  int arrived = 0, generation = 0;
  Lane lanes[32];
};
struct Block {
  std::vector<uint8_t> memory;
  int arrived = 0, generation = 0;
  std::vector<Warp> warps;
};
struct Fiber {
  ucontext_t start;
  jmp_buf state;
  std::unique_ptr<char[]> stack;
  int block, thread;
  bool begun, done;
};
struct Message {
  Address to, barrier;
  int bytes;
  uint32_t words[2];
};
// As in hardware: bytes still to come, which may be negative, and whether a thread has yet to announce them.
struct MessageBarrier {
  int32_t bytes;
  uint16_t pending, phase;
};

inline std::vector<Block> blocks;
inline std::vector<Fiber> fibers;
inline std::vector<Message> messages;
inline std::mt19937 dice;
inline std::map<int, Kind> sites;
inline int cluster, cluster_arrived, cluster_generation, faulty_site, fault;
inline long progress;
inline Outcome outcome;
inline Fiber* now;
inline jmp_buf scheduler;

inline void Yield() {
  if (_setjmp(now->state) == 0) _longjmp(scheduler, 1);
}
inline Block& ThisBlock() { return blocks[now->block]; }
inline Warp& ThisWarp() { return ThisBlock().warps[now->thread / 32]; }

// Notes the place, and returns what is wrong with it.
inline int FaultAt(int site, Kind kind) {
  sites[site] = kind;
  return site == faulty_site ? fault : kNone;
}

inline void Meet(int& arrived, int& generation, int all) {
  const int mine = generation;
  if (++arrived == all) {
    arrived = 0, ++generation, ++progress;
  } else {
    while (generation == mine) Yield();
  }
}

// All lanes of a warp meet, each with its operands; the last one computes for all.
template <class Fill, class Compute>
Lane& Together(Fill fill, Compute compute) {
  Warp& warp = ThisWarp();
  Lane& own = warp.lanes[now->thread % 32];
  fill(own);
  const int mine = warp.generation;
  if (++warp.arrived == 32) {
    compute(warp.lanes);
    warp.arrived = 0, ++warp.generation, ++progress;
  } else {
    while (warp.generation == mine) Yield();
  }
  return own;
}

inline MessageBarrier& BarrierAt(int block, Address offset) {
  return *reinterpret_cast<MessageBarrier*>(blocks[block].memory.data() + (offset & 0xffffff));
}
inline void EndPhase(MessageBarrier& barrier) {
  if (barrier.pending == 0 && barrier.bytes == 0) barrier.phase ^= 1, barrier.pending = 1, ++progress;
}
inline void Deliver(size_t n) {
  const Message message = messages[n];
  messages[n] = messages.back();
  messages.pop_back();
  const int block = static_cast<int>(message.to >> 24) - 1;
  const Address offset = message.to & 0xffffff;
  if (message.to >> 24 != message.barrier >> 24 || block < 0 || block >= static_cast<int>(blocks.size()) ||
      offset + message.bytes > blocks[block].memory.size()) {
    outcome = kAstray;
    return;
  }
  memcpy(blocks[block].memory.data() + offset, message.words, message.bytes);
  MessageBarrier& barrier = BarrierAt(block, message.barrier);
  barrier.bytes -= message.bytes, ++progress;
  EndPhase(barrier);
}

}  // namespace emulator

DEVICE int ThreadNumber() { return emulator::now->thread; }
DEVICE int ClusterNumber() { return emulator::cluster; }
DEVICE int RankInCluster() { return emulator::now->block; }
DEVICE uint8_t* SharedMemory() { return emulator::ThisBlock().memory.data(); }
DEVICE Address AddressOf(const void*) { return 0; }
DEVICE Address InBlock(Address own, int rank) { return own | static_cast<Address>(rank + 1) << 24; }

DEVICE void WarpBarrier() {
  emulator::Together([](emulator::Lane&) {}, [](emulator::Lane*) {});
}
DEVICE void BlockBarrier(SITE) {
  if (emulator::FaultAt(site, emulator::kBarrier) == emulator::kLeftOut) return;
  emulator::Block& block = emulator::ThisBlock();
  emulator::Meet(block.arrived, block.generation, kThreads);
}
DEVICE void ClusterBarrier() {
  emulator::Meet(emulator::cluster_arrived, emulator::cluster_generation, static_cast<int>(emulator::fibers.size()));
}

DEVICE void InitMessages(Address barrier) { emulator::BarrierAt(emulator::now->block, barrier) = {0, 1, 0}; }
DEVICE void PublishBarriers() {}
DEVICE void ExpectMessages(Address barrier, int bytes, SITE) {
  const int fault = emulator::FaultAt(site, emulator::kExpect);
  if (fault == emulator::kLeftOut) return;
  emulator::MessageBarrier& at = emulator::BarrierAt(emulator::now->block, barrier);
  if (at.pending == 0) {
    emulator::outcome = emulator::kCountedWrong;
    return;
  }
  at.bytes += fault == emulator::kShifted ? bytes - 4 : bytes, --at.pending;
  emulator::EndPhase(at);
}
// The scheduler sees a deadlock sooner than patience ends.
DEVICE bool AwaitMessages(Address barrier, int parity, uint32_t, SITE) {
  const int fault = emulator::FaultAt(site, emulator::kWait);
  if (fault == emulator::kLeftOut) return true;
  if (fault == emulator::kFlipped) parity ^= 1;
  while (emulator::BarrierAt(emulator::now->block, barrier).phase == parity) emulator::Yield();
  return true;
}
DEVICE void Post(Address to, int bytes, uint32_t first, uint32_t second, Address barrier, int site) {
  const int fault = emulator::FaultAt(site, emulator::kSend);
  if (fault == emulator::kLeftOut && emulator::now->thread % 32 == 5) return;
  if (fault == emulator::kShifted) to += 4;
  emulator::messages.push_back({to, barrier, bytes, {first, second}});
}
DEVICE uint32_t Bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return bits;
}
DEVICE void Send(Address to, uint32_t word, Address barrier, SITE) { Post(to, 4, word, 0, barrier, site); }
DEVICE void Send(Address to, float first, float second, Address barrier, SITE) {
  Post(to, 8, Bits(first), Bits(second), barrier, site);
}

template <class From>
float Exchange(float x, From from) {
  return emulator::Together([x](emulator::Lane& own) { own.x = x; },
                            [from](emulator::Lane* lanes) {
                              for (int n = 0; n < 32; ++n) lanes[n].c[0] = lanes[from(n)].x;
                            })
      .c[0];
}
DEVICE float ShuffleXor(float x, int mask) {
  return Exchange(x, [mask](int lane) { return lane ^ mask; });
}
DEVICE float ShuffleUp(float x, int distance) {
  return Exchange(x, [distance](int lane) { return lane >= distance ? lane - distance : lane; });
}
DEVICE float Shuffle(float x, int from) {
  return Exchange(x, [from](int) { return from; });
}
template <class Combine>
uint32_t Reduce(uint32_t x, Combine combine) {
  return emulator::Together([x](emulator::Lane& own) { own.word = x; },
                            [combine](emulator::Lane* lanes) {
                              uint32_t all = lanes[0].word;
                              for (int n = 1; n < 32; ++n) all = combine(all, lanes[n].word);
                              for (int n = 0; n < 32; ++n) lanes[n].words[0] = all;
                            })
      .words[0];
}
DEVICE uint32_t WarpSum(uint32_t x) {
  return Reduce(x, [](uint32_t a, uint32_t b) { return a + b; });
}
DEVICE uint32_t WarpLeast(uint32_t x) {
  return Reduce(x, [](uint32_t a, uint32_t b) { return a < b ? a : b; });
}
DEVICE uint32_t WarpMost(uint32_t x) {
  return Reduce(x, [](uint32_t a, uint32_t b) { return a > b ? a : b; });
}

DEVICE float Widen(BFloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float y;
  memcpy(&y, &bits, 4);
  return y;
}
DEVICE uint32_t Round(float low, float high) {
  const auto round = [](float x) { return (Bits(x) + 0x7fff + (Bits(x) >> 16 & 1)) >> 16; };
  return round(low) | round(high) << 16;
}
DEVICE float Half(uint32_t pair, int n) { return Widen({static_cast<uint16_t>(pair >> 16 * n)}); }

DEVICE void MultiplyTile(float c[4], uint4 a, uint32_t b0, uint32_t b1) {
  const emulator::Lane& own = emulator::Together(
      [&](emulator::Lane& lane) {
        memcpy(lane.c, c, sizeof lane.c);
        lane.a = a, lane.b[0] = b0, lane.b[1] = b1;
      },
      [](emulator::Lane* lanes) {
        float rows[16][16], columns[8][16];
        for (int n = 0; n < 32; ++n) {
          const int group = n / 4, place = n % 4 * 2;
          const uint32_t a[4] = {lanes[n].a.x, lanes[n].a.y, lanes[n].a.z, lanes[n].a.w};
          for (int i = 0; i < 2; ++i) {
            for (int r = 0; r < 4; ++r) rows[group + 8 * (r % 2)][place + i + 8 * (r / 2)] = Half(a[r], i);
            for (int r = 0; r < 2; ++r) columns[group][place + i + 8 * r] = Half(lanes[n].b[r], i);
          }
        }
        for (int n = 0; n < 32; ++n) {
          for (int r = 0; r < 4; ++r) {
            float sum = lanes[n].c[r];
            for (int k = 0; k < 16; ++k) sum += rows[n / 4 + 8 * (r / 2)][k] * columns[n % 4 * 2 + r % 2][k];
            lanes[n].c[r] = sum;
          }
        }
      });
  memcpy(c, own.c, sizeof own.c);
}
DEVICE void LoadTransposed(uint32_t to[4], Address row) {
  const uint8_t* const memory = SharedMemory();
  const emulator::Lane& own =
      emulator::Together([row](emulator::Lane& lane) { lane.row = row; },
                         [memory](emulator::Lane* lanes) {
                           uint16_t matrices[4][8][8];
                           for (int n = 0; n < 32; ++n) memcpy(matrices[n / 8][n % 8], memory + lanes[n].row, 16);
                           for (int n = 0; n < 32; ++n) {
                             for (int m = 0; m < 4; ++m) {
                               const int k = n % 4 * 2, column = n / 4;
                               lanes[n].words[m] = matrices[m][k][column] | matrices[m][k + 1][column] << 16;
                             }
                           }
                         });
  memcpy(to, own.words, sizeof own.words);
}
DEVICE float Tanh(float x) { return tanhf(x); }
DEVICE float Exp2(float x) { return exp2f(x); }

}  // namespace wavenet

// Runs the kernel on a CPU, one cluster after another; test_cuda_emulator.py calls it.

#include "kernel.h"

namespace wavenet {
namespace emulator {
namespace {

constexpr int kLongestSleep = 64;  // rounds

const Params* params;

void Enter() {
  Sample(*params);
  now->done = true, ++progress;
  _longjmp(scheduler, 1);
}

// Resumes a fiber until it waits; returns whether it has just ended.
bool Resume(Fiber& fiber) {
  if (fiber.done) return false;
  now = &fiber;
  if (_setjmp(scheduler) == 0) {
    if (fiber.begun) _longjmp(fiber.state, 1);
    fiber.begun = true;
    setcontext(&fiber.start);
  }
  return fiber.done;
}

void Begin() {
  constexpr size_t kStack = 64 << 10;
  blocks.assign(kStages + 1, Block());
  for (Block& block : blocks) block.memory.assign(kSharedBytes, 0xff), block.warps.resize(kWarps);
  fibers.resize(blocks.size() * kThreads);
  messages.clear();
  cluster_arrived = cluster_generation = 0, outcome = kDone;
  for (size_t n = 0; n < fibers.size(); ++n) {
    Fiber& fiber = fibers[n];
    fiber.block = static_cast<int>(n) / kThreads, fiber.thread = static_cast<int>(n) % kThreads;
    fiber.begun = fiber.done = false;
    if (!fiber.stack) fiber.stack.reset(new char[kStack]);
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack.get(), fiber.start.uc_stack.ss_size = kStack;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, Enter, 0);
  }
}

// Runs one cluster to its end.
Outcome Run() {
  Begin();
  std::vector<size_t> order(fibers.size() / 32);
  std::vector<int> asleep(order.size());
  for (size_t n = 0; n < order.size(); ++n) order[n] = n;
  size_t left = fibers.size();
  int idle = 0;
  while (left > 0) {
    const long before = progress;
    std::shuffle(order.begin(), order.end(), dice);
    for (const size_t warp : order) {
      if (asleep[warp] > 0) {
        --asleep[warp];
        continue;
      }
      if (dice() % 64 == 0) asleep[warp] = dice() % kLongestSleep;
      // As far as it comes, or only a few meetings.
      for (int turns = 1 << dice() % 8; turns > 0; --turns) {
        const long own = progress;
        for (size_t lane = 0; lane < 32; ++lane) left -= Resume(fibers[32 * warp + lane]);
        if (progress == own) break;
      }
      while (!messages.empty() && dice() % 4 != 0) Deliver(dice() % messages.size());
      if (outcome != kDone) return outcome;
    }
    if (progress != before) {
      idle = 0;
    } else if (!messages.empty()) {
      Deliver(dice() % messages.size());
    } else if (++idle > 2 * kLongestSleep) {
      return kDeadlock;
    }
  }
  return kDone;
}

}  // namespace
}  // namespace emulator
}  // namespace wavenet

extern "C" int emulate(const wavenet::Params* params, int clusters, uint32_t seed, int faulty_site, int fault) {
  using namespace wavenet::emulator;
  wavenet::emulator::params = params, wavenet::emulator::faulty_site = faulty_site, wavenet::emulator::fault = fault;
  dice.seed(seed), sites.clear();
  for (cluster = 0; cluster < clusters; ++cluster) {
    const Outcome outcome = Run();
    if (outcome != kDone) return outcome;
  }
  return kDone;
}

// Gives the places of the last run at which a fault can be planted, and their kinds; returns how many there are.
extern "C" int emulated_sites(int* lines, int* kinds) {
  int count = 0;
  for (const auto& [line, kind] : wavenet::emulator::sites) lines[count] = line, kinds[count++] = kind;
  return count;
}

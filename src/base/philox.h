// Philox4x32-10: a counter-based random generator without hidden state.
// Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
//
// The key is (seed, purpose), the counter (step, index): the same four numbers give the same value on any machine, rank
// and layout, so a resumed or re-sharded run draws what an undisturbed one would.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

namespace temper {

// What a random number is for. The values are part of the run state: never renumber.
enum class RandomPurpose : uint32_t { kInit = 1, kShuffle = 2, kSample = 3, kSplit = 4, kTest = 5 };

struct Philox {
  uint64_t seed;
  RandomPurpose purpose;

  // Four independent 32-bit words for (step, index).
  std::array<uint32_t, 4> words(uint64_t step, uint64_t index) const {
    uint32_t c0 = static_cast<uint32_t>(index), c1 = static_cast<uint32_t>(index >> 32);
    uint32_t c2 = static_cast<uint32_t>(step), c3 = static_cast<uint32_t>(step >> 32);
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    k1 ^= static_cast<uint32_t>(purpose) * 0x9E3779B9u;
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
      const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0, n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
      c1 = static_cast<uint32_t>(p1), c3 = static_cast<uint32_t>(p0);
      c0 = n0, c2 = n2;
      k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    return {c0, c1, c2, c3};
  }

  // Uniform in (0, 1), never 0 or 1.
  double uniform(uint64_t step, uint64_t index) const {
    const auto w = words(step, index);
    return ((uint64_t{w[0]} << 20 | w[1] >> 12) + 0.5) * 0x1p-52;
  }

  // Standard normal by Box-Muller.
  double normal(uint64_t step, uint64_t index) const {
    const auto w = words(step, index);
    const double u = ((uint64_t{w[0]} << 20 | w[1] >> 12) + 0.5) * 0x1p-52;
    const double v = ((uint64_t{w[2]} << 20 | w[3] >> 12) + 0.5) * 0x1p-52;
    return std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * v);
  }

  // Uniform integer in [0, bound).
  uint64_t below(uint64_t step, uint64_t index, uint64_t bound) const {
    const auto w = words(step, index);
    return static_cast<uint64_t>((static_cast<unsigned __int128>(uint64_t{w[0]} << 32 | w[1]) * bound) >> 64);
  }
};

}  // namespace temper

#include "base/philox.h"

#include <gtest/gtest.h>

#include <set>

namespace temper {
namespace {

using Words = std::array<uint32_t, 4>;

// The published known answers of Philox4x32-10 (Random123, kat_vectors). The purpose enters the second key word as
// purpose * 0x9E3779B9, which the key given here takes out again.
Philox with_key(uint32_t k0, uint32_t k1) {
  const auto purpose = RandomPurpose::kInit;
  const uint32_t mixed = k1 ^ (static_cast<uint32_t>(purpose) * 0x9E3779B9u);
  return {uint64_t{mixed} << 32 | k0, purpose};
}

TEST(Philox, GivesThePublishedAnswers) {
  EXPECT_EQ(with_key(0, 0).words(0, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(with_key(~0u, ~0u).words(~uint64_t{0}, ~uint64_t{0}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(with_key(0xa4093822, 0x299f31d0).words(0x03707344'13198a2e, 0x85a308d3'243f6a88),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, EveryNumberOfTheKeyAndCounterMatters) {
  std::set<Words> seen;
  for (const uint64_t seed : {0ull, 1ull, 1ull << 40})
    for (const auto purpose : {RandomPurpose::kInit, RandomPurpose::kShuffle})
      for (const uint64_t step : {0ull, 1ull, 1ull << 40})
        for (const uint64_t index : {0ull, 1ull, 1ull << 40}) seen.insert(Philox{seed, purpose}.words(step, index));
  EXPECT_EQ(seen.size(), 3u * 2 * 3 * 3);
}

TEST(Philox, UniformHasItsMoments) {
  const Philox random{1, RandomPurpose::kTest};
  constexpr int kCount = 100000;
  double sum = 0, squares = 0;
  for (int i = 0; i < kCount; ++i) {
    const double u = random.uniform(3, static_cast<uint64_t>(i));
    ASSERT_GT(u, 0);
    ASSERT_LT(u, 1);
    sum += u, squares += u * u;
  }
  EXPECT_NEAR(sum / kCount, 0.5, 0.005);
  EXPECT_NEAR(squares / kCount, 1.0 / 3, 0.005);
}

TEST(Philox, NormalHasItsMoments) {
  const Philox random{1, RandomPurpose::kTest};
  constexpr int kCount = 100000;
  double sum = 0, squares = 0, fourth = 0;
  for (int i = 0; i < kCount; ++i) {
    const double x = random.normal(3, static_cast<uint64_t>(i));
    sum += x, squares += x * x, fourth += x * x * x * x;
  }
  EXPECT_NEAR(sum / kCount, 0, 0.02);
  EXPECT_NEAR(squares / kCount, 1, 0.02);
  EXPECT_NEAR(fourth / kCount, 3, 0.2);
}

TEST(Philox, BelowIsEvenAndInside) {
  const Philox random{1, RandomPurpose::kTest};
  std::array<int, 7> counts{};
  for (uint64_t i = 0; i < 70000; ++i) ++counts.at(random.below(0, i, 7));
  for (const int count : counts) EXPECT_NEAR(count, 10000, 500);
  EXPECT_EQ(random.below(0, 5, 1), 0u);
}

}  // namespace
}  // namespace temper

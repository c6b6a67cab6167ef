// The host's plan of dispatch: that every row goes once, to its expert, whatever the counts and the budget.
#include "layers/dispatch_rounds.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "base/philox.h"

namespace temper::layers {
namespace {

constexpr int64_t kExperts = 12, kTokens = 20, kChosen = 2;

// Rows of each source for each expert; some sources have none, some experts are crowded.
std::vector<int32_t> random_counts(int64_t num_ranks, int64_t seed) {
  const Philox random{static_cast<uint64_t>(seed), RandomPurpose::kTest};
  std::vector<int32_t> count_SE(num_ranks * kExperts, 0);
  const int64_t crowd = random.below(0, 0, kExperts) + 1;
  for (int64_t s = 0; s < num_ranks; ++s)
    for (int64_t i = 0; random.below(1, s, 4) > 0 && i < kTokens * kChosen; ++i)
      ++count_SE[s * kExperts + random.below(2 + s, i, crowd)];
  return count_SE;
}

// A row is named by its place among its source's, sorted by expert. What each owner gets in a round, in the order in
// which all_to_all_v brings it: rows by source.
std::vector<std::pair<int64_t, int64_t>> received(const std::vector<std::vector<DispatchRound>>& ranks, size_t round,
                                                  int64_t owner) {
  std::vector<std::pair<int64_t, int64_t>> rows;
  for (size_t source = 0; source < ranks.size(); ++source) {
    const DispatchRound& sent = ranks[source][round];
    EXPECT_EQ(sent.send_rows_S[owner], ranks[owner][round].recv_rows_S[source]);
    for (int64_t i = 0; i < sent.send_rows_S[owner]; ++i)
      rows.emplace_back(static_cast<int64_t>(source), sent.send_begin_S[owner] + i);
  }
  return rows;
}

void check(const std::vector<int32_t>& count_SE, int64_t num_ranks, int64_t max_rows, bool exact) {
  std::vector<std::vector<DispatchRound>> ranks;
  for (int64_t r = 0; r < num_ranks; ++r)
    ranks.push_back(make_dispatch_rounds(count_SE, {r, num_ranks, max_rows, exact}));
  const int64_t e = kExperts / num_ranks;
  std::vector<int32_t> seen(count_SE.size(), 0);
  for (int64_t owner = 0; owner < num_ranks; ++owner) {
    ASSERT_EQ(ranks[owner].size(), ranks[0].size());
    int64_t next_block = 0;
    for (size_t i = 0; i < ranks[0].size(); ++i) {
      const DispatchRound& round = ranks[owner][i];
      EXPECT_EQ(round.first_block, next_block);
      next_block = round.end_block;
      const auto rows = received(ranks, i, owner);
      ASSERT_EQ(static_cast<int64_t>(rows.size()), round.num_received());
      ASSERT_EQ(static_cast<int64_t>(round.from_R.size()), round.num_rows());
      if (max_rows > 0) EXPECT_LE(round.num_rows(), max_rows);
      EXPECT_LE(round.num_rows(),
                std::max(max_rows, most_expert_rows({0, num_ranks, 0, exact}, kTokens * kChosen, kExperts, kChosen)));
      std::pair<int64_t, int64_t> last{-1, -1};
      int64_t num_rows = 0;
      for (int64_t local = 0; local < e; ++local) {
        EXPECT_EQ(round.offset_e1[local] % kRowAlignment, 0);
        last = {-1, -1};
        for (int64_t row = round.offset_e1[local]; row < round.offset_e1[local + 1]; ++row) {
          const int32_t from = round.from_R[row];
          if (from < 0) continue;
          EXPECT_EQ(round.row_N[from], row);
          const auto [source, place] = rows[from];
          EXPECT_LT(last, rows[from]) << "by source, then by token";
          last = rows[from];
          const auto* counts = &count_SE[source * kExperts];
          const int64_t expert = owner * e + local;
          const int64_t begin = std::accumulate(counts, counts + expert, int64_t{0});
          EXPECT_TRUE(begin <= place && place < begin + counts[expert]) << "the row of another expert";
          const int64_t block = local * num_ranks + source;
          EXPECT_LE(round.block_offset_B1[block], row);
          EXPECT_LT(row, round.block_offset_B1[block + 1]);
          if (exact) EXPECT_EQ(round.block_offset_B1[block] % kRowAlignment, 0);
          ++seen[source * kExperts + expert], ++num_rows;
        }
      }
      EXPECT_EQ(num_rows, round.num_received());
    }
    EXPECT_EQ(next_block, e * num_ranks);
  }
  EXPECT_EQ(seen, count_SE);
}

TEST(DispatchRounds, BringEveryRowToItsExpertOnce) {
  size_t most_rounds = 0;
  for (int64_t seed = 0; seed < 60; ++seed) {
    const int64_t num_ranks = std::vector<int64_t>{2, 3, 4, 6}[seed % 4];
    const auto count_SE = random_counts(num_ranks, seed);
    const int64_t least = most_expert_rows({}, kTokens, kExperts, kChosen);
    for (const int64_t max_rows : {int64_t{0}, least, 2 * least})
      for (const bool exact : {false, true}) check(count_SE, num_ranks, max_rows, exact);
    most_rounds = std::max(most_rounds, make_dispatch_rounds(count_SE, {0, num_ranks, 48, true}).size());
  }
  EXPECT_GE(most_rounds, 3u);
}

TEST(DispatchRounds, HaveOneRoundWithoutRows) {
  const std::vector<int32_t> count_SE(3 * kExperts, 0);
  const auto rounds = make_dispatch_rounds(count_SE, {1, 3, 16, false});
  ASSERT_EQ(rounds.size(), 1u);
  EXPECT_EQ(rounds[0].num_rows(), 0);
  EXPECT_EQ(rounds[0].num_received(), 0);
}

}  // namespace
}  // namespace temper::layers

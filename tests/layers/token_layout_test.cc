#include "layers/token_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "layers/rotary.h"

namespace temper::layers {
namespace {

using testing::ElementsAre;

TEST(TokenLayout, DocumentsDoNotSeeEachOther) {
  const HostLayout layout = make_layout({0, 5, 6, 15}, 3, {4});
  EXPECT_THAT(layout.position_T, ElementsAre(0, 1, 2, 3, 4, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8));
  EXPECT_THAT(layout.key_begin_T, ElementsAre(0, 0, 0, 1, 2, 5, 6, 6, 6, 7, 8, 9, 10, 11, 12));
  EXPECT_EQ(layout.key_end_T[4], 5);
  const EntryLayout& entries = layout.entries[0];
  // One entry of the first document, none of the second, two of the third; its tail of one token gives nothing.
  EXPECT_THAT(entries.row_C, ElementsAre(0, 6, 10));
  EXPECT_THAT(entries.prev_row_C, ElementsAre(-1, -1, 6));
  EXPECT_THAT(entries.position_C, ElementsAre(0, 0, 4));
  EXPECT_THAT(entries.entry_begin_T, ElementsAre(0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1));
  // A token that closes a window sees its entry at once.
  EXPECT_THAT(entries.entry_count_T, ElementsAre(0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2));
  EXPECT_EQ(entries.max_count, 2);
  EXPECT_EQ(count_entry_pairs(entries, 1), 8);
  EXPECT_EQ(layout.num_window_pairs, 12 + 1 + 24);
}

std::vector<int32_t> shifted(std::vector<int32_t> rows, int64_t by) {
  for (int32_t& row : rows) row += row < 0 ? 0 : static_cast<int32_t>(by);
  return rows;
}

// The rows and entries of all ranks of the cut, as numbers of the micro-batch, are those of one rank, and each rank has
// the room that its history needs.
void expect_whole(const std::vector<int32_t>& cu_seqlens, const std::vector<int64_t>& begin_R) {
  constexpr int64_t kWindow = 5, kRate = 4;
  const HostLayout whole = make_layout(cu_seqlens, kWindow, {kRate});
  HostLayout joined;
  EntryLayout joined_entries;
  const auto append = [](std::vector<int32_t>& to, const std::vector<int32_t>& from) {
    to.insert(to.end(), from.begin(), from.end());
  };
  for (int64_t rank = 0; rank + 1 < std::ssize(begin_R); ++rank) {
    const RowCut cut{rank, begin_R};
    const HostLayout part = cut_layout(whole, cut);
    const EntryLayout& entries = part.entries[0];
    const int64_t origin = cut.begin() - part.history_R[rank];
    append(joined.position_T, part.position_T);
    append(joined.key_begin_T, shifted(part.key_begin_T, origin));
    append(joined.key_end_T, shifted(part.key_end_T, origin));
    append(joined_entries.entry_begin_T, entries.entry_begin_T);
    append(joined_entries.entry_count_T, entries.entry_count_T);
    append(joined_entries.row_C, shifted(entries.row_C, cut.begin() - entries.history_R[rank]));
    append(joined_entries.prev_row_C, shifted(entries.prev_row_C, cut.begin() - entries.history_R[rank]));
    append(joined_entries.position_C, entries.position_C);
    EXPECT_EQ(entries.count_R[rank], std::ssize(entries.row_C));
    EXPECT_EQ(entries.num_entries(), std::ssize(whole.entries[0].row_C));
    EXPECT_EQ(entries.max_count, whole.entries[0].max_count);
    const RowCapacity capacity{cut.num_rows(), cut.size()};
    EXPECT_LE(std::ssize(entries.row_C), capacity.own_entries(kRate));
    EXPECT_LT(part.history_R[rank], kWindow);
    EXPECT_LT(entries.history_R[rank], 2 * kRate);
    EXPECT_LT(entries.current_history_R[rank], kRate);
    for (const int32_t row : entries.row_C) EXPECT_GE(row, entries.history_R[rank] - entries.current_history_R[rank]);
    for (const int32_t row : part.key_begin_T) EXPECT_GE(row, 0);
    joined.num_window_pairs += part.num_window_pairs;
  }
  EXPECT_EQ(joined.position_T, whole.position_T);
  EXPECT_EQ(joined.key_begin_T, whole.key_begin_T);
  EXPECT_EQ(joined.key_end_T, whole.key_end_T);
  EXPECT_EQ(joined.num_window_pairs, whole.num_window_pairs);
  EXPECT_EQ(joined_entries.row_C, whole.entries[0].row_C);
  EXPECT_EQ(joined_entries.prev_row_C, whole.entries[0].prev_row_C);
  EXPECT_EQ(joined_entries.position_C, whole.entries[0].position_C);
  EXPECT_EQ(joined_entries.entry_begin_T, whole.entries[0].entry_begin_T);
  EXPECT_EQ(joined_entries.entry_count_T, whole.entries[0].entry_count_T);
}

TEST(TokenLayout, PartsOfRanksMakeUpTheWhole) {
  const std::vector<int32_t> documents = {0, 13, 14, 17, 37, 40};
  for (int64_t size = 1; size <= 50; ++size) expect_whole(documents, even_cut(40, 0, size).begin_R);
  expect_whole(documents, {0, 0, 15, 15, 15, 39, 40, 40});
  for (int64_t cut = 0; cut <= 40; ++cut) expect_whole(documents, {0, cut, 40});
  expect_whole({0}, {0, 0, 0});
}

// Ten tokens, cut in the middle: the rank behind reads four keys, and its first window the row before and the whole
// window before that one.
TEST(TokenLayout, HistoryIsWhatTheFirstRowsRead) {
  const HostLayout part = cut_layout(make_layout({0, 10}, 5, {4}), even_cut(10, 1, 2));
  EXPECT_THAT(part.position_T, ElementsAre(5, 6, 7, 8, 9));
  EXPECT_THAT(part.history_R, ElementsAre(0, 4));
  EXPECT_THAT(part.key_begin_T, ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(part.entries[0].count_R, ElementsAre(1, 1));
  EXPECT_THAT(part.entries[0].current_history_R, ElementsAre(0, 1));
  EXPECT_THAT(part.entries[0].history_R, ElementsAre(0, 5));
  EXPECT_THAT(part.entries[0].row_C, ElementsAre(4));
  EXPECT_THAT(part.entries[0].prev_row_C, ElementsAre(0));
  EXPECT_THAT(part.entries[0].entry_count_T, ElementsAre(1, 1, 2, 2, 2));
}

// Check values of the architecture page, section 4.2.
TEST(Rotary, FrequenciesOfTheReleasedModels) {
  const auto compress = rotary_frequencies({64, 160000, true, 16, 32, 1, 65536});
  EXPECT_NEAR(compress[0], 1.0, 1e-12);
  EXPECT_NEAR(compress[1], 6.8765602193e-01, 1e-10);
  EXPECT_NEAR(compress[15], 3.6355385836e-03, 1e-12);
  EXPECT_NEAR(compress[16], 2.2656250000e-03, 1e-12);
  EXPECT_NEAR(compress[20], 2.9697777826e-04, 1e-13);
  EXPECT_NEAR(compress[24], 1.953125e-05, 1e-14);
  EXPECT_NEAR(compress[25], 5.3723126714e-06, 1e-15);
  EXPECT_NEAR(compress[31], 5.6805290369e-07, 1e-16);
  const auto main = rotary_frequencies({64, 10000});
  EXPECT_NEAR(main[1], 7.49894209e-01, 1e-9);
  EXPECT_NEAR(main[31], 1.33352143e-04, 1e-12);
}

}  // namespace
}  // namespace temper::layers

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

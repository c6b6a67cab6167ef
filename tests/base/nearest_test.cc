#include "base/nearest.h"

#include <gtest/gtest.h>

namespace temper {
namespace {

TEST(NearestTest, CountsEdits) {
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(edit_distance("abc", "abc"), 0);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("hiddne", "hidden"), 1);  // neighbours swapped
}

TEST(NearestTest, OffersOnlyWhatLooksLikeAMisspelling) {
  const std::string_view known[] = {"lr", "hidden_size", "head_dim"};
  EXPECT_EQ(nearest_name("hiden_sise", known), "hidden_size");
  EXPECT_EQ(nearest_name("head_dims", known), "head_dim");
  EXPECT_EQ(nearest_name("weight", known), "");
  EXPECT_EQ(nearest_name("hea_dm", known), "");  // two edits in a short name
}

}  // namespace
}  // namespace temper

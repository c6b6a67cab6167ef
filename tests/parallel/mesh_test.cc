#include "parallel/mesh.h"

#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "parallel/released_shapes.h"

namespace temper::parallel {
namespace {

constexpr Axis kAxes[] = {Axis::kDp, Axis::kCp,  Axis::kTp,   Axis::kPp,
                          Axis::kEp, Axis::kEdp, Axis::kData, Axis::kSlices};

std::string refusal(const Layout& layout, int64_t world_size, const model::Config& config) {
  try {
    return "taken: " + resolve(layout, world_size, config).to_string();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    return error.what();
  }
}

TEST(MeshTest, OpenDpTakesWhatTheWorldLeaves) {
  EXPECT_EQ(resolve({}, 1, v4_flash()), (Layout{.dp = 1}));
  EXPECT_EQ(resolve({.ep = 8, .pp = 4, .cp = 2, .tp = 2}, 64, v4_flash()),
            (Layout{.dp = 4, .ep = 8, .pp = 4, .cp = 2, .tp = 2}));
  EXPECT_EQ(resolve({.dp = 16, .ep = 64, .pp = 16, .cp = 4, .zero = 0}, 1024, v4_pro()).to_string(),
            "dp 16, ep 64, pp 16, cp 4, zero 0");
  EXPECT_EQ(Layout{}.to_string(), "zero 1");
}

TEST(MeshTest, TheLargestWorldIsWhatAnOpenDpCanTake) {
  EXPECT_EQ(largest_world({}, 7), 7);
  EXPECT_EQ(largest_world({.pp = 2, .tp = 2}, 7), 4);
  EXPECT_EQ(largest_world({.ep = 4, .pp = 2, .cp = 2}, 31), 24);  // dp * cp in fours
  EXPECT_EQ(largest_world({.pp = 8}, 7), 0);
  EXPECT_EQ(largest_world({.dp = 2, .pp = 2}, 7), 4);  // a given dp is kept
  EXPECT_EQ(largest_world({.dp = 2, .pp = 2}, 3), 0);
  for (int64_t n = 1; n < 40; ++n) {
    const Layout layout{.ep = 4, .pp = 2, .cp = 2};
    const bool is_taken = refusal(layout, n, v4_pro()).starts_with("taken");
    EXPECT_EQ(largest_world(layout, n) == n, is_taken) << n;
  }
}

TEST(MeshTest, RankIsThatOfTheFormula) {
  const Layout layout = resolve({.ep = 4, .pp = 2, .cp = 2, .tp = 2}, 48, v4_pro());
  ASSERT_EQ(layout.dp, 6);
  for (int64_t rank = 0; rank < 48; ++rank) {
    const MeshRank at = mesh_rank(layout, rank);
    EXPECT_EQ(((at.pp * 6 + at.dp) * 2 + at.cp) * 2 + at.tp, rank);
    EXPECT_EQ((at.dp * 2 + at.cp) * 2 + at.tp, at.edp * 4 + at.ep);
    EXPECT_LT(at.ep, 4);
  }
}

// The coordinates that the ranks of a group share.
std::vector<int64_t> shared(const MeshRank& at, Axis axis) {
  switch (axis) {
    case Axis::kDp:
      return {at.pp, at.cp, at.tp};
    case Axis::kCp:
      return {at.pp, at.dp, at.tp};
    case Axis::kTp:
      return {at.pp, at.dp, at.cp};
    case Axis::kPp:
      return {at.dp, at.cp, at.tp};
    case Axis::kEp:
      return {at.pp, at.edp};
    case Axis::kEdp:
      return {at.pp, at.ep};
    case Axis::kData:
      return {at.pp};
    case Axis::kSlices:
      return {at.pp, at.tp};
  }
  return {};
}

TEST(MeshTest, GroupsOfEveryAxisShareTheOtherCoordinatesAndNameTheirFirstRank) {
  const Layout layout{.dp = 6, .ep = 4, .pp = 2, .cp = 2, .tp = 3};
  const std::map<std::string, int64_t> sizes = {{"dp", 6}, {"cp", 2},  {"tp", 3},    {"pp", 2},
                                                {"ep", 4}, {"edp", 9}, {"data", 36}, {"slices", 12}};
  for (const Axis axis : kAxes) {
    std::map<int64_t, std::vector<int64_t>> groups;    // color: its ranks in ascending order
    std::map<std::vector<int64_t>, int64_t> color_of;  // by shared coordinates
    std::string name;
    for (int64_t rank = 0; rank < 72; ++rank) {
      const Group g = group(layout, rank, axis);
      name = g.name;
      // Ascending key in ascending rank: Comm::split puts a group's ranks in the order of the world.
      EXPECT_EQ(g.key, static_cast<int64_t>(groups[g.color].size())) << name << " of rank " << rank;
      groups[g.color].push_back(rank);
      const auto [at, is_new] = color_of.try_emplace(shared(mesh_rank(layout, rank), axis), g.color);
      EXPECT_EQ(at->second, g.color) << name << " of rank " << rank;
    }
    EXPECT_EQ(groups.size(), color_of.size()) << name;
    for (const auto& [color, ranks] : groups) {
      EXPECT_EQ(color, ranks.front()) << name;
      EXPECT_EQ(static_cast<int64_t>(ranks.size()), sizes.at(name)) << name;
    }
  }
}

TEST(MeshTest, RefusesAWorldThatTheAxesDoNotDivide) {
  EXPECT_EQ(
      refusal({.pp = 3}, 8, v4_flash()),
      "[layout] asks for pp 3 x cp 1 x tp 1 ranks, which do not divide the 8 that were started; the nearest valid "
      "layouts of a world of 8: \"dp 2, pp 4, zero 1\" or \"dp 4, pp 2, zero 1\" or \"pp 8, zero 1\"");
  EXPECT_EQ(
      refusal({.dp = 2, .pp = 2}, 8, v4_flash()),
      "[layout] asks for dp 2 x pp 2 x cp 1 x tp 1 ranks, which are not the 8 that were started; the nearest valid "
      "layouts of a world of 8: \"dp 4, pp 2, zero 1\" or \"dp 2, pp 4, zero 1\" or \"dp 2, pp 2, tp 2, zero 1\"");
}

TEST(MeshTest, RefusesWhatTheModelCannotShareOut) {
  EXPECT_EQ(refusal({.ep = 5}, 10, v4_flash()),
            "[layout] ep = 5 does not divide n_routed_experts = 256; the nearest valid layouts of a world of 10: "
            "\"dp 10, ep 2, zero 1\" or \"dp 10, zero 1\" or \"dp 5, ep 2, tp 2, zero 1\"");
  EXPECT_EQ(refusal({.tp = 16}, 16, v4_flash()),
            "[layout] tp = 16 does not divide o_groups = 8; the nearest valid layouts of a world of 16: "
            "\"dp 2, tp 8, zero 1\" or \"dp 4, tp 4, zero 1\" or \"dp 8, tp 2, zero 1\"");
  EXPECT_EQ(refusal({.ep = 4, .pp = 4, .tp = 2}, 8, v4_flash()),
            "[layout] ep = 4 does not divide dp * cp * tp = 2; the nearest valid layouts of a world of 8: "
            "\"dp 2, ep 4, pp 2, tp 2, zero 1\" or \"ep 2, pp 4, tp 2, zero 1\" or \"dp 4, ep 4, tp 2, zero 1\"");
  EXPECT_EQ(resolve({.pp = 64}, 64, v4_flash()).pp, 64);  // parts of layers
  EXPECT_EQ(refusal({.pp = 128}, 128, v4_flash()),
            "[layout] pp = 128 stages are more than the attentions and experts of the model's 43 layers; the nearest "
            "valid layouts of a world of 128: \"dp 2, pp 64, zero 1\" or \"dp 4, pp 32, zero 1\" or \"dp 8, pp 16, "
            "zero 1\"");
}

TEST(MeshTest, RefusesAxesThatAreNoNumberOfRanks) {
  EXPECT_EQ(
      refusal({.ep = 0}, 1, v4_flash()),
      "[layout] ep = 0 is not a number of ranks; the nearest valid layouts of a world of 1: \"one rank, zero 1\"");
  EXPECT_EQ(refusal({.dp = -1}, 2, v4_flash()),
            "[layout] dp = -1 is not a number of ranks; the nearest valid layouts of a world of 2: "
            "\"dp 2, zero 1\" or \"tp 2, zero 1\" or \"cp 2, zero 1\"");
  EXPECT_EQ(
      refusal({.cp = int64_t{1} << 62}, 2, v4_flash()),
      "[layout] cp = 4611686018427387904 is more than the 2 ranks that were started; the nearest valid layouts of a "
      "world of 2: \"cp 2, zero 1\" or \"dp 2, zero 1\" or \"ep 2, cp 2, zero 1\"");
  EXPECT_EQ(refusal({.zero = 4}, 2, v4_flash()),
            "[layout] zero = 4 is not a level: 0 shares out nothing, 1 masters and moments, 2 also gradients, 3 also "
            "weights");
}

}  // namespace
}  // namespace temper::parallel

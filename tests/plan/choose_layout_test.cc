// layout.auto: what is chosen fits, is the fastest of what fits by the formulas, and keeps to what is given.
#include "plan/choose_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <mutex>

#include "base/error.h"
#include "comm/world.h"
#include "parallel/released_shapes.h"
#include "train/layouts.h"

namespace temper::plan {
namespace {

using ::testing::HasSubstr;

LayoutRequest tiny_request(int64_t num_ranks) {
  LayoutRequest request;
  request.run.config = train::testing::layout_config();
  request.run.options.max_tokens = 64;
  request.run.num_micro_batches = 8;
  request.num_ranks = num_ranks;
  return request;
}

const RankedLayout& chosen(const LayoutRanking& ranking) { return ranking.layouts[ranking.chosen]; }

int64_t most_bytes(DryRunRequest run, const parallel::Layout& layout) {
  run.layout = layout;
  int64_t most = 0;
  for (const Role& role : dry_run(run).roles) most = std::max(most, role.total_bytes);
  return most;
}

TEST(ChooseLayoutTest, FastestComesFirstAndMemoryIsThatOfTheHeaviestRank) {
  const LayoutRequest request = tiny_request(4);
  const LayoutRanking ranking = rank_layouts(request);
  EXPECT_EQ(ranking.chosen, 0u) << "everything fits";
  for (size_t i = 1; i < ranking.layouts.size(); ++i)
    EXPECT_LE(ranking.layouts[i - 1].time.step, ranking.layouts[i].time.step);
  for (const RankedLayout& ranked : ranking.layouts)
    EXPECT_EQ(ranked.heaviest.total_bytes, most_bytes(request.run, ranked.layout)) << ranked.layout.to_string();
}

TEST(ChooseLayoutTest, WithLittleMemoryTheFirstThatFitsIsTakenAndWhatIsTooLargeIsNamed) {
  LayoutRequest request = tiny_request(4);
  const int64_t enough = chosen(rank_layouts(request)).heaviest.total_bytes;
  request.memory_bytes = enough - 1;
  const LayoutRanking ranking = rank_layouts(request);
  EXPECT_GT(ranking.chosen, 0u);
  EXPECT_LT(chosen(ranking).heaviest.total_bytes, enough);
  for (size_t i = 0; i < ranking.chosen; ++i) EXPECT_FALSE(ranking.layouts[i].fits);
  EXPECT_THAT(describe(ranking, request), HasSubstr("does not fit: " + ranking.layouts[0].layout.to_string()));

  request.memory_bytes = 1000;
  try {
    rank_layouts(request);
    FAIL() << "nothing fits into 1000 bytes";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory);
    EXPECT_THAT(error.what(), HasSubstr("layouts of 4 ranks fits into 1000 B a rank. \""));
    EXPECT_THAT(error.what(), HasSubstr(" of them "));
  }
}

TEST(ChooseLayoutTest, WhatTheRunFileGivesStays) {
  LayoutRequest request = tiny_request(4);
  request.given.pp = 2, request.given.zero = 2;
  for (const RankedLayout& ranked : rank_layouts(request).layouts) {
    EXPECT_EQ(ranked.layout.pp, 2);
    EXPECT_EQ(ranked.layout.zero, 2);
  }
  request.given.dp = 3;
  EXPECT_THROW(rank_layouts(request), Error);
}

// Pipelines are simulated only where they may be next, and Books made only where they may fit.
TEST(ChooseLayoutTest, NothingThatIsFasterIsPassedOver) {
  LayoutRequest request = tiny_request(8);
  LayoutTimes times(request.run, request.speed);
  double fastest = 1e9, fastest_cut = 1e9;
  for (const parallel::Schedule schedule : {parallel::Schedule::kOneFOneB, parallel::Schedule::kZeroBubble}) {
    for (int64_t zero = 0; zero <= 3; ++zero) {
      const parallel::Layout like{.zero = zero, .schedule = schedule};
      for (const parallel::Layout& layout : parallel::valid_layouts(8, request.run.config, like)) {
        const double step = times.of(layout).step;
        EXPECT_LE(times.at_least(layout).step, step * (1 + 1e-12)) << layout.to_string();
        fastest = std::min(fastest, step);
        if (layout.pp == 2 && layout.tp == 2) fastest_cut = std::min(fastest_cut, step);
        if (layout.ep > 1) continue;
        DryRunRequest run = request.run;
        run.layout = layout;
        EXPECT_LE(times.parameter_bytes(layout), static_cast<double>(heaviest_role(run).total_bytes))
            << layout.to_string();
      }
    }
  }
  EXPECT_DOUBLE_EQ(chosen(rank_layouts(request)).time.step, fastest);
  request.given.pp = 2, request.given.tp = 2;
  EXPECT_LE(chosen(rank_layouts(request)).time.step, fastest_cut);
}

TEST(ChooseLayoutTest, AStepOfOneLongRowIsCutAndManyRowsAreDealt) {
  LayoutRequest request = tiny_request(2);
  request.run.options.max_tokens = 4096;
  request.run.num_micro_batches = 1;
  EXPECT_EQ(chosen(rank_layouts(request)).layout.dp, 1);
  request.run.num_micro_batches = 8;
  EXPECT_EQ(chosen(rank_layouts(request)).layout.dp, 2);
}

TEST(ChooseLayoutTest, ExactModeTakesWhatKeepsItsBits) {
  LayoutRequest request = tiny_request(6);
  request.run.options.part.exact_micro_batches = 8;
  for (const RankedLayout& ranked : rank_layouts(request).layouts) {
    EXPECT_EQ(ranked.layout.cp * ranked.layout.tp, 1) << ranked.layout.to_string();
    EXPECT_NE(ranked.layout.dp % 3, 0) << ranked.layout.to_string();
  }
}

TEST(ChooseLayoutTest, TheShardThatAttendsToMostSetsThePace) {
  LayoutRequest request = tiny_request(4);
  request.run.options.max_tokens = 2048;
  LayoutTimes one_document(request.run, request.speed);
  DryRunRequest short_ones = request.run;
  short_ones.options.max_document = 64;
  LayoutTimes many(short_ones, request.speed);
  const auto compute_beside_even = [](LayoutTimes& times) {
    return times.of({.dp = 1, .cp = 4}).compute / times.of({.dp = 1, .tp = 4}).compute;
  };
  EXPECT_GT(compute_beside_even(one_document), 1.02 * compute_beside_even(many));
}

TEST(ChooseLayoutTest, StagesThatWaitAndUpdatesThatAllRanksMakeCostTime) {
  const LayoutRequest request = tiny_request(4);
  LayoutTimes times(request.run, request.speed);
  EXPECT_GT(times.of({.dp = 2, .pp = 2}).bubble, 0);
  EXPECT_EQ(times.of({.dp = 4}).bubble, 0);
  EXPECT_NEAR(times.of({.dp = 4, .zero = 0}).optimizer / times.of({.dp = 4, .zero = 1}).optimizer, 4, 1e-9);
  EXPECT_GT(times.of({.dp = 4, .zero = 3}).weights, times.of({.dp = 4, .zero = 2}).weights);
  EXPECT_GT(times.of({.dp = 4, .ep = 4}).ep, times.of({.dp = 4, .ep = 2}).ep);
  EXPECT_LT(times.of({.dp = 4, .ep = 4}).gradients, times.of({.dp = 4, .ep = 2}).gradients);
}

TEST(ChooseLayoutTest, AllRanksTakeTheChoiceOfTheLeastMemory) {
  const std::string text = R"(
[model]
config = ")" TEMPER_SOURCE_DIR R"(/tests/fixtures/v4/mixed_rate16/config.json"
tokenizer = "t"
[data]
train = "d"
[train]
steps = 1
gradient_accumulation = 4
tokens_per_micro_batch = 64
[layout]
auto = true
zero = 1
[output]
dir = "o"
)";
  std::mutex mutex;
  std::vector<std::string> layouts;
  comm::run_ranks(2, [&](comm::Comm& world) {
    train::RunConfig config = train::parse_run_config(text, "run.toml", {});
    const std::string words = choose_together(world, world.rank() == 0 ? int64_t{1} << 40 : int64_t{1} << 30, config);
    const auto& l = config.layout;
    const std::lock_guard lock(mutex);
    layouts.push_back(parallel::Layout{l.dp, l.ep, l.pp, l.cp, l.tp, l.zero}.to_string());
    if (world.rank() == 0) EXPECT_THAT(words, HasSubstr(" that fits into 1.00 GiB a rank: "));
  });
  EXPECT_EQ(layouts[0], layouts[1]);
  EXPECT_THAT(layouts[0], HasSubstr("zero 1"));
}

TEST(ChooseLayoutTest, FindsALayoutOfTheLargestModelOnAThousandRanks) {
  LayoutRequest request;
  request.run.config = parallel::v4_pro();
  request.run.options.precision = layers::Precision::kBf16;
  request.run.options.max_tokens = 4096;
  request.run.options.recompute = model::Recompute::kBlock;
  request.run.num_micro_batches = 1024;
  request.num_ranks = 1024;
  request.memory_bytes = int64_t{80} << 30;
  request.speed = {.flops = 400e12, .memory = 2e12, .link = 50e9};
  const LayoutRanking ranking = rank_layouts(request);
  EXPECT_TRUE(chosen(ranking).fits);
  EXPECT_GT(chosen(ranking).layout.ep, 1) << "a rank cannot hold all experts of its layers";
  EXPECT_GT(ranking.chosen, 0u) << "the fastest would need more memory than there is";
}

}  // namespace
}  // namespace temper::plan

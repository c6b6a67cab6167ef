#include "data/loader.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/philox.h"
#include "data/packing.h"
#include "data_test_support.h"

namespace temper::data {
namespace {

using Rows = std::vector<std::vector<int64_t>>;

TEST(Packing, VectorsOfThePage) {
  // post-training.md 7.8: lengths 5, 2, 3, 1, capacity 4, cut to 4 or split into 4 + 1.
  EXPECT_EQ(pack_best_fit(std::vector<int64_t>{4, 2, 3, 1}, 4), (Rows{{0}, {2, 3}, {1}}));
  EXPECT_EQ(pack_best_fit(std::vector<int64_t>{4, 1, 2, 3, 1}, 4), (Rows{{0}, {3, 1}, {2, 4}}));
}

TEST(Packing, HoldsEveryExampleOnceAndWastesLittle) {
  const Philox random{1, RandomPurpose::kTest};
  std::vector<int64_t> lengths;
  int64_t total = 0;
  for (uint64_t i = 0; i < 2000; ++i) lengths.push_back(1 + static_cast<int64_t>(random.below(0, i, 300)));
  std::set<int64_t> seen;
  const Rows rows = pack_best_fit(lengths, 1024);
  for (const auto& row : rows) {
    int64_t used = 0;
    for (const int64_t index : row) {
      EXPECT_TRUE(seen.insert(index).second);
      used += lengths[static_cast<size_t>(index)];
    }
    EXPECT_LE(used, 1024);
    total += used;
  }
  EXPECT_EQ(seen.size(), lengths.size());
  EXPECT_LE(static_cast<int64_t>(rows.size()), total / 1024 + 2);
}

TEST(Packing, RefusesWhatDoesNotFit) {
  expect_error(ErrorCode::kInvalidArgument, {"example 1", "5 tokens", "4 tokens"}, [] {
    pack_best_fit(std::vector<int64_t>{1, 5}, 4);
  });
  expect_error(ErrorCode::kInvalidArgument, {"0 tokens"}, [] { pack_best_fit(std::vector<int64_t>{0}, 4); });
  EXPECT_TRUE(pack_best_fit({}, 4).empty());
}

// Examples whose tokens name them: example i holds i*100, i*100+1, ...
std::vector<Example> examples(int64_t count) {
  const Philox random{2, RandomPurpose::kTest};
  std::vector<Example> out;
  for (int64_t i = 0; i < count; ++i) {
    Example example;
    const auto length = 2 + random.below(0, static_cast<uint64_t>(i), 20);
    for (uint64_t t = 0; t < length; ++t)
      example.tokens.push_back(static_cast<int32_t>(i * 100 + static_cast<int64_t>(t)));
    example.trained.assign(length, 1);
    example.trained[0] = 0;
    out.push_back(std::move(example));
  }
  return out;
}

LoaderOptions small_options() {
  return {.rows = {.row_tokens = 64, .window_examples = 16, .num_epochs = 3, .seed = 9}, .micro_batches_per_step = 3};
}

std::vector<LoaderStep> all_steps(Loader& loader) {
  std::vector<LoaderStep> steps;
  for (LoaderStep step; loader.next(step);) steps.push_back(std::move(step));
  return steps;
}

std::vector<int32_t> tokens_of(const std::vector<LoaderStep>& steps) {
  std::vector<int32_t> tokens;
  for (const LoaderStep& step : steps) {
    for (const auto& batch : step.micro_batches) tokens.insert(tokens.end(), batch.tokens.begin(), batch.tokens.end());
  }
  return tokens;
}

TEST(MicroBatch, TargetsStayInsideTheDocument) {
  Example first{{10, 11, 12}, {0, 1, 1}, 0.5f, ""}, second{{20, 21, 22}, {0, 0, 1}, 1.0f, ""};
  const auto batch = make_micro_batch({first, second}, {1, 0});
  EXPECT_EQ(batch.tokens, (std::vector<int32_t>{20, 21, 22, 10, 11, 12}));
  EXPECT_EQ(batch.cu_seqlens, (std::vector<int32_t>{0, 3, 6}));
  EXPECT_EQ(batch.targets, (std::vector<int32_t>{-1, 22, -1, 11, 12, -1}));
  EXPECT_EQ(batch.weights, (std::vector<float>{0, 1, 0, 0.5f, 0.5f, 0}));
}

TEST(Loader, GivesEveryExampleOncePerEpoch) {
  const auto data = examples(50);
  Loader loader(data, small_options());
  const auto steps = all_steps(loader);
  std::map<int32_t, int> seen;
  for (const int32_t token : tokens_of(steps)) ++seen[token];
  size_t num_tokens = 0;
  for (const Example& example : data) {
    for (const int32_t token : example.tokens) EXPECT_EQ(seen[token], 3) << token;
    num_tokens += example.tokens.size();
  }
  EXPECT_EQ(seen.size(), num_tokens);
  for (const LoaderStep& step : steps) {
    for (size_t m = 0; m < step.micro_batches.size(); ++m) {
      std::vector<int32_t> tokens;
      for (const Example* document : step.documents[m])
        tokens.insert(tokens.end(), document->tokens.begin(), document->tokens.end());
      EXPECT_EQ(tokens, step.micro_batches[m].tokens) << "the documents are named in their order";
    }
  }
  EXPECT_EQ(static_cast<int64_t>(steps.size()), loader.count_steps());
  EXPECT_EQ(steps.back().epoch, 3.0);
  EXPECT_EQ(loader.position().num_tokens, static_cast<int64_t>(3 * num_tokens));
  EXPECT_EQ(loader.position().num_trained_tokens, static_cast<int64_t>(3 * (num_tokens - 50)));
  EXPECT_EQ(loader.position().step, static_cast<int64_t>(steps.size()));
  const auto& position = loader.position();
  EXPECT_DOUBLE_EQ(loader.padding_fraction(),
                   1 - static_cast<double>(3 * num_tokens) / static_cast<double>(position.num_rows * 64));
  EXPECT_LT(loader.padding_fraction(), 0.3);
}

TEST(Loader, ShufflesBySeedAndEpoch) {
  Loader same(examples(50), small_options()), again(examples(50), small_options());
  const auto first = tokens_of(all_steps(same));
  EXPECT_EQ(first, tokens_of(all_steps(again)));
  LoaderOptions other = small_options();
  other.rows.seed = 10;
  Loader differs(examples(50), other);
  EXPECT_NE(first, tokens_of(all_steps(differs)));
  const size_t epoch = first.size() / 3;
  EXPECT_FALSE(std::equal(first.begin(), first.begin() + static_cast<int64_t>(epoch),
                          first.begin() + static_cast<int64_t>(epoch)));
}

TEST(Loader, RestoredGoesOnExactly) {
  Loader whole(examples(50), small_options());
  const auto steps = all_steps(whole);
  for (size_t done = 0; done <= steps.size(); ++done) {
    Loader first(examples(50), small_options());
    LoaderStep step;
    for (size_t i = 0; i < done; ++i) ASSERT_TRUE(first.next(step));
    const LoaderPosition saved = LoaderPosition::from_json(first.position().to_json());
    EXPECT_EQ(saved, first.position());
    Loader second(examples(50), small_options());
    second.next(step);  // a loader that has already begun
    second.restore(saved);
    const std::vector<LoaderStep> rest(steps.begin() + static_cast<int64_t>(done), steps.end());
    EXPECT_EQ(tokens_of(all_steps(second)), tokens_of(rest)) << "after " << done << " steps";
    EXPECT_EQ(second.position(), whole.position());
  }
}

TEST(Loader, RestoresUnderAnotherNumberOfMicroBatches) {
  Loader whole(examples(50), small_options()), first(examples(50), small_options());
  LoaderStep step;
  first.next(step);
  LoaderOptions one = small_options();
  one.micro_batches_per_step = 1;
  Loader second(examples(50), one);
  second.restore(first.position());
  const auto steps = all_steps(whole);
  EXPECT_EQ(tokens_of(all_steps(second)), tokens_of({steps.begin() + 1, steps.end()}));
}

TEST(Loader, EndlessGoesPastTheLastEpochAndStopsCleanly) {
  LoaderOptions options = small_options();
  options.rows.num_epochs = 0;
  Loader loader(examples(5), options);
  EXPECT_EQ(loader.count_steps(), 0);
  LoaderStep step;
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(loader.next(step));
  EXPECT_EQ(step.micro_batches.size(), 3u);
  EXPECT_GT(step.epoch, 5);
}

TEST(Loader, RefusesForeignPositionsAndBadOptions) {
  const auto invalid = ErrorCode::kInvalidArgument;
  Loader loader(examples(50), small_options());
  LoaderPosition position = loader.position();
  position.row.window = 99;
  expect_error(invalid, {"window 99"}, [&] { loader.restore(position); });
  LoaderStep step;
  EXPECT_TRUE(loader.next(step));  // still usable
  auto changed = examples(50);
  changed[3].tokens[0] ^= 1;
  Loader other(changed, small_options());
  expect_error(invalid, {"other data"}, [&] { other.restore(loader.position()); });
  auto weighed = examples(50);
  weighed[3].weight = 0.25f;
  Loader reweighed(weighed, small_options());
  expect_error(invalid, {"other data"}, [&] { reweighed.restore(loader.position()); });
  expect_error(invalid, {"no examples"}, [] { Loader({}, small_options()); });
  LoaderOptions options = small_options();
  options.rows.row_tokens = 4;
  expect_error(invalid, {"a row 4"}, [&] { Loader(examples(50), options); });
  options = small_options();
  options.micro_batches_per_step = 0;
  expect_error(invalid, {"micro-batch"}, [&] { Loader(examples(50), options); });
  for (const char* bad : {"", "[]", "{}", R"({"step": -1})", R"({"step": "x"})", R"({"step": 1e3})"})
    expect_error(ErrorCode::kCorrupt, {"position"}, [&] { LoaderPosition::from_json(bad); });
}

}  // namespace
}  // namespace temper::data

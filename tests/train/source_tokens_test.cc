#include "train/source_tokens.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace temper::train {
namespace {

namespace fs = std::filesystem;
using Counts = std::map<std::string, SourceTokens::Count>;

const std::vector<fs::path> kFiles = {"data/a/train.jsonl", "data/b/train.jsonl", "data/b/more.jsonl"};

data::Example example_of(const std::string& origin) {
  data::Example example;
  example.origin = origin;
  return example;
}

// Documents of 3, 2 and 4 tokens in one row, of 5 in another.
class SourceTokensTest : public ::testing::Test {
 protected:
  SourceTokensTest() {
    layers::MicroBatch one, two;
    one.cu_seqlens = {0, 3, 5, 9}, one.targets = {1, 2, -1, 7, -1, -1, -1, 0, -1};
    two.cu_seqlens = {0, 5}, two.targets = {4, 4, 4, 4, -1};
    step_.micro_batches = {one, two};
    step_.documents = {{&a_, &b_, &more_}, {&a_}};
  }
  const data::Example a_ = example_of("data/a/train.jsonl:7"), b_ = example_of("data/b/train.jsonl:1"),
                      more_ = example_of("data/b/more.jsonl:12");
  data::LoaderStep step_;
};

TEST_F(SourceTokensTest, AreCountedByFileUnderTheShortestNameThatTells) {
  SourceTokens sources(kFiles);
  EXPECT_EQ(sources.counts(), (Counts{{"a/train.jsonl", {}}, {"b/train.jsonl", {}}, {"more.jsonl", {}}}));
  sources.add(step_);
  EXPECT_EQ(sources.counts(), (Counts{{"a/train.jsonl", {8, 6}}, {"b/train.jsonl", {2, 1}}, {"more.jsonl", {4, 1}}}));
}

TEST_F(SourceTokensTest, GoOnFromARunState) {
  SourceTokens whole(kFiles), first(kFiles), resumed(kFiles);
  whole.add(step_), whole.add(step_);
  first.add(step_);
  resumed.restore(nlohmann::ordered_json::parse(first.to_json().dump()));
  resumed.add(step_);
  EXPECT_EQ(resumed.counts(), whole.counts());
}

TEST_F(SourceTokensTest, OfAnotherRunOrNoneAreRefused) {
  SourceTokens sources(kFiles);
  for (const char* text : {"[]", "3", R"({"more.jsonl": 4})", R"({"more.jsonl": {"tokens": 4}})",
                           R"({"more.jsonl": {"tokens": -4, "trained_tokens": 1}})",
                           R"({"other.jsonl": {"tokens": 4, "trained_tokens": 1}})"})
    EXPECT_THROW(sources.restore(nlohmann::ordered_json::parse(text)), Error) << text;
  EXPECT_EQ(sources.counts().at("more.jsonl").tokens, 0);
}

}  // namespace
}  // namespace temper::train

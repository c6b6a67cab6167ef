#include "data/tokenizer_trainer.h"

#include "data/tokenizer.h"
#include "data_test_support.h"

namespace temper::data {
namespace {

using Ids = std::vector<int32_t>;
using TrainerTest = DataTest;

TokenizerSpec train(std::vector<std::string_view> texts, int64_t num_merges) {
  TrainerOptions options;
  options.vocab_size = static_cast<int64_t>(kConversationTokens.size()) + 256 + num_merges;
  return train_tokenizer(texts, options);
}

TEST_F(TrainerTest, MergesTheMostFrequentPairSmallestIdsFirst) {
  // "aaab" x1, " aaab" x2: (a,a) 6, (a,b) 3; after aa: (aa,a) 3, (a,b) 3, (Ġ,aa) 2; aa's id is above a's, so ab is
  // next.
  const TokenizerSpec spec = train({"aaab aaab aaab"}, 3);
  ASSERT_EQ(spec.merges.size(), 3u);
  const auto spelling = [&](int32_t id) { return spec.vocab.at(static_cast<size_t>(id)).first; };
  EXPECT_EQ(spelling(spec.merges[0].merged), "aa");
  EXPECT_EQ(spelling(spec.merges[1].merged), "ab");
  EXPECT_EQ(spelling(spec.merges[2].merged), "aaab");
  EXPECT_EQ(spec.merges[2].merged, 15 + 256 + 2);
}

TEST_F(TrainerTest, StopsWhenNoPairIsSeenTwice) { EXPECT_EQ(train({"abab", "xy"}, 50).merges.size(), 1u); }

TEST_F(TrainerTest, FileReadsBackEqual) {
  const TokenizerSpec spec =
      train({"the cat sat on the mat; the hat 《天地玄黃》 天地", "naïve café \"quoted\" \\ \n"}, 20);
  write_tokenizer(folder_ / "out", spec);
  const TokenizerSpec back = read_tokenizer_file(folder_ / "out" / "tokenizer.json");
  EXPECT_EQ(back.vocab, spec.vocab);
  EXPECT_EQ(back.split_patterns, spec.split_patterns);
  ASSERT_EQ(back.merges.size(), spec.merges.size());
  const Tokenizer tokenizer = Tokenizer::load(folder_ / "out");
  EXPECT_EQ(tokenizer.vocab_size(), static_cast<int64_t>(spec.vocab.size()));
  EXPECT_EQ(tokenizer.token_id(kBos), 0);
  EXPECT_EQ(tokenizer.token_id(kEos), 1);
  EXPECT_EQ(tokenizer.token_id(kThink), 5);
  const std::string text = "the 天地 hat\xf0\x9f\x98\x80";
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  EXPECT_EQ(tokenizer.encode(std::string(kUser) + "the"), (Ids{3, *tokenizer.token_id("the")}));
  EXPECT_TRUE(std::filesystem::exists(folder_ / "out" / "tokenizer_config.json"));
}

TEST_F(TrainerTest, RefusesWhatItCannotTrainOn) {
  const auto invalid = ErrorCode::kInvalidArgument;
  expect_error(invalid, {"270", "271"}, [] { train({"abc"}, -1); });
  expect_error(invalid, {"2 texts, all empty"}, [] { train({"", ""}, 1); });
  expect_error(invalid, {"text 1 of 2 is not UTF-8"}, [] { train({"a", "\xff"}, 1); });
  expect_error(invalid, {"given twice"}, [] {
    TrainerOptions options{.vocab_size = 300, .special_tokens = {"x1", "x1"}};
    const std::string_view text = "a";
    train_tokenizer({&text, 1}, options);
  });
}

}  // namespace
}  // namespace temper::data

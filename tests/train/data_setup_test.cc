#include "train/data_setup.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "base/scratch_dir.h"

namespace temper::train {
namespace {

namespace fs = std::filesystem;

TEST(DataSetupTest, PatternsMatchNamesInOrder) {
  const test::ScratchDir dir;
  fs::create_directories(dir / "sub.jsonl");  // a directory never matches
  for (const char* name : {"b.jsonl", "a.jsonl", "part-1.txt", "part-12.txt"}) std::ofstream(dir / name) << "x";
  auto names = [&](const std::vector<std::string>& patterns) {
    std::vector<std::string> out;
    for (const auto& pattern : patterns) {
      for (const auto& file : expand_files({(dir / pattern).string()})) out.push_back(file.filename());
    }
    return out;
  };
  using Names = std::vector<std::string>;
  EXPECT_EQ(names({"*.jsonl"}), (Names{"a.jsonl", "b.jsonl"}));
  EXPECT_EQ(names({"part-?.txt"}), (Names{"part-1.txt"}));
  EXPECT_EQ(names({"*1*t*"}), (Names{"part-1.txt", "part-12.txt"}));
  EXPECT_EQ(names({"b.jsonl", "a*"}), (Names{"b.jsonl", "a.jsonl"}));
  EXPECT_THROW(names({"*.json"}), Error);
  EXPECT_THROW(names({"c.jsonl"}), Error);
}

TEST(DataSetupTest, OptionsFollowTheKeys) {
  RunConfig config;
  config.train.tokens_per_micro_batch = 512;
  EXPECT_EQ(read_options(config, 300).max_tokens, 512);
  config.data.format = "sharegpt", config.data.effort = "max", config.data.mode = "thinking";
  EXPECT_EQ(read_options(config, 300).record_format, data::RecordFormat::kShareGpt);
  EXPECT_EQ(read_options(config, 300).conversation.effort, data::ReasoningEffort::kMax);
  config.data.prose = "no-such-file.json";
  EXPECT_THROW(read_options(config, 300), Error);
  config.data.prose.clear();
  config.data.max_document = 128, config.data.over_long = "drop", config.data.no_loss = "drop";
  config.data.mode = "thinking", config.data.prompt_format = "raw", config.data.train_on_history = false;
  const data::ReadOptions options = read_options(config, 300);
  EXPECT_EQ(options.max_tokens, 128);
  EXPECT_EQ(options.max_document, 128);
  EXPECT_EQ(options.model_vocab_size, 300);
  EXPECT_EQ(options.when_long, data::LongExample::kDrop);
  EXPECT_EQ(options.when_untrained, data::UntrainedExample::kDrop);
  EXPECT_EQ(options.conversation.mode, data::ConversationMode::kThinking);
  EXPECT_FALSE(options.conversation.train_on_history);
  EXPECT_EQ(options.format, data::PromptFormat::kRaw);
}

}  // namespace
}  // namespace temper::train

#include "train/run_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace temper::train {
namespace {

using ::testing::HasSubstr;

const char kGood[] = R"(
[model]
path = "base"
[data]
train = "a.jsonl"
[train]
steps = 10
[output]
dir = "runs/x"
)";

RunConfig parse(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return parse_run_config(text, "RUN.toml", overrides);
}

// What is refused and how: the message must hold every part.
void expect_refusal(const std::string& text, const std::vector<std::string>& overrides, ErrorCode code,
                    const std::vector<std::string>& parts) {
  try {
    parse(text, overrides);
    ADD_FAILURE() << "accepted: " << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    for (const auto& part : parts) EXPECT_THAT(error.what(), HasSubstr(part));
  }
}

TEST(RunConfigTest, DefaultsAreThoseOfPostTraining) {
  const RunConfig c = parse(kGood);
  EXPECT_EQ(c.train.objective, "sft");
  EXPECT_EQ(c.optimizer.lr, 5e-6);
  EXPECT_EQ(c.optimizer.min_lr, 5e-7);
  EXPECT_EQ(c.optimizer.schedule, "cosine");
  EXPECT_EQ(c.optimizer.weight_decay, 0.1);
  EXPECT_EQ(c.optimizer.max_grad_norm, 1);
  EXPECT_EQ(c.data.train, std::vector<std::string>{"a.jsonl"});
}

TEST(RunConfigTest, TextThatTheTomlLibraryAssertsOnIsRefusedWithItsLine) {
  for (const char* line : {"[.a]", "[=]", "[\x01]", "[[#]]", "[\u00e9]"})
    expect_refusal(kGood + std::string(line) + "\nx = 1\n", {}, ErrorCode::kCorrupt, {"RUN.toml:10: not TOML", "name"});
}

TEST(RunConfigTest, CharactersBehindTheTomlLibrarysTableOfSpacesAreRefused) {
  expect_refusal("[\uFEF7", {}, ErrorCode::kCorrupt, {"RUN.toml:1"});
  expect_refusal("[model]\n\uFB26path = \"x\"\n", {}, ErrorCode::kCorrupt, {"RUN.toml:2"});
}

TEST(RunConfigTest, NestingAndLengthAreBounded) {
  expect_refusal("x = " + std::string(100'000, '['), {}, ErrorCode::kCorrupt, {"RUN.toml:1", "256"});
  std::string tables = "x = ";
  for (int i = 0; i < 1000; ++i) tables += "{a = ";
  expect_refusal(tables, {}, ErrorCode::kCorrupt, {"RUN.toml:1"});
  expect_refusal(kGood + std::string(1 << 20, '#'), {}, ErrorCode::kCorrupt, {"RUN.toml", "at most 1048576"});
}

TEST(RunConfigTest, ReadsEveryType) {
  const std::string text = std::string(kGood) + R"(
save_every = 5
[optimizer]
lr = 1        # a whole number is a number
betas = [0.9, 0.99]
schedule = "wsd"
)";
  const RunConfig c = parse(text, {"data.train=[\"x\", \"y\"]", "train.steps=7", "data.over_long=drop"});
  EXPECT_EQ(c.output.save_every, 5);
  EXPECT_EQ(c.optimizer.lr, 1);
  EXPECT_EQ(c.optimizer.betas[1], 0.99);
  EXPECT_EQ(c.optimizer.schedule, "wsd");
  EXPECT_EQ(c.data.train, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(c.train.steps, 7);
  EXPECT_EQ(c.data.over_long, "drop");
}

TEST(RunConfigTest, UnknownKeyNamesTheNearestAndTheLine) {
  expect_refusal(std::string(kGood) + "[optimizer]\nlearning_rat = 1\n", {}, ErrorCode::kInvalidArgument,
                 {"RUN.toml:11", "optimizer.learning_rat", "nearest"});
  expect_refusal("[train]\nstep = 3\n", {}, ErrorCode::kInvalidArgument, {"RUN.toml:2", "train.step;", "train.steps"});
  expect_refusal("[trian]\nsteps = 3\n", {}, ErrorCode::kInvalidArgument, {"RUN.toml:2", "trian.steps", "train.steps"});
  expect_refusal("steps = 3\n", {}, ErrorCode::kInvalidArgument, {"RUN.toml:1", "steps"});
  expect_refusal(kGood, {"output.directory=x"}, ErrorCode::kInvalidArgument,
                 {"--set output.directory=x", "output.dir"});
  expect_refusal(kGood, {"steps"}, ErrorCode::kInvalidArgument, {"--set steps", "section.key=value"});
}

TEST(RunConfigTest, WrongTypeNamesKeyFoundAndExpected) {
  expect_refusal("[train]\nsteps = \"many\"\n", {}, ErrorCode::kInvalidArgument,
                 {"RUN.toml:2", "train.steps", "the string \"many\"", "a whole number"});
  expect_refusal("[train]\nsteps = 1.5\n", {}, ErrorCode::kInvalidArgument, {"the number 1.5", "a whole number"});
  expect_refusal("[checkpoint]\nverify = 1\n", {}, ErrorCode::kInvalidArgument, {"whole number 1", "true or false"});
  expect_refusal("[optimizer]\nbetas = [0.9]\n", {}, ErrorCode::kInvalidArgument, {"a list of 1", "two numbers"});
  expect_refusal("[train]\nprecision = \"fp16\"\n", {}, ErrorCode::kInvalidArgument,
                 {"train.precision", "fp16", "\"fp32\" or \"bf16\""});
  expect_refusal("[train]\nsteps = -1\n", {}, ErrorCode::kInvalidArgument, {"the whole number -1", ">= 0"});
  expect_refusal("[optimizer]\nlr = nan\n", {}, ErrorCode::kInvalidArgument, {"optimizer.lr"});
  expect_refusal("[data]\ntrain = [1]\n", {}, ErrorCode::kInvalidArgument, {"data.train", "list of strings"});
  expect_refusal("[train.steps]\nx = 1\n", {}, ErrorCode::kInvalidArgument, {"train.steps is a table"});
}

TEST(RunConfigTest, NotTomlNamesLineAndColumn) {
  expect_refusal("[train]\nsteps = = 3\n", {}, ErrorCode::kCorrupt, {"RUN.toml:2:", "not TOML"});
  EXPECT_THROW(load_run_config("no/such/RUN.toml", {}), Error);
}

TEST(RunConfigTest, ContradictionsAreRefused) {
  expect_refusal(kGood, {"model.config=c.json"}, ErrorCode::kInvalidArgument, {"model.path", "model.config"});
  expect_refusal(kGood, {"train.steps=0"}, ErrorCode::kInvalidArgument, {"train.steps or train.epochs"});
  expect_refusal(kGood, {"train.epochs=2"}, ErrorCode::kInvalidArgument, {"train.steps or train.epochs"});
  expect_refusal(kGood, {"data.train=[]"}, ErrorCode::kInvalidArgument, {"data.train"});
  expect_refusal(kGood, {"data.max_document=4096"}, ErrorCode::kInvalidArgument, {"data.max_document"});
  expect_refusal(kGood, {"train.objective=dpo"}, ErrorCode::kUnsupported, {"dpo"});
  expect_refusal(kGood, {"train.objective=sfft"}, ErrorCode::kInvalidArgument, {"sfft"});
}

TEST(RunConfigTest, ExamplesAreAccepted) {
  for (const char* name : {"pretrain", "sft"}) {
    const std::string path = fmt::format("{}/examples/{}.toml", TEMPER_SOURCE_DIR, name);
    EXPECT_EQ(load_run_config(path, {}).train.objective, name);
  }
}

TEST(RunConfigTest, ListingHasEveryKeyWithItsDefault) {
  const std::string listing = help_keys();
  EXPECT_THAT(listing, HasSubstr("[optimizer]\nlr = 5e-06\n"));
  EXPECT_THAT(listing, HasSubstr("betas = [0.9, 0.95]"));
  EXPECT_THAT(listing, HasSubstr("over_long = \"cut\"\n    what happens to longer examples. \"cut\" or \"drop\".\n"));
}

}  // namespace
}  // namespace temper::train

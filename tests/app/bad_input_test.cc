// What a user can get wrong: exit code 2, a message that names the thing, nothing overwritten.
#include <gtest/gtest.h>

#include <fstream>
#include <map>

#include "app/run_binary.h"
#include "base/file.h"
#include "base/scratch_dir.h"

namespace temper::test {
namespace {

namespace fs = std::filesystem;

void expect_refused(const std::vector<std::string>& arguments, const std::vector<std::string>& messages) {
  const RunResult result = run_temper(arguments);
  EXPECT_EQ(result.exit_code, 2) << result.output;
  for (const auto& message : messages)
    EXPECT_NE(result.output.find(message), std::string::npos) << "no \"" << message << "\" in: " << result.output;
}

// A model of 300 ids with its tokenizer, a data file, and a run over them that can be spoilt in one place.
class BadInput : public testing::Test {
 protected:
  BadInput() {
    directory_.write("config.json", config_);
    directory_.write("text.txt", "In the beginning God created the heaven and the earth.");
    const RunResult result =
        run_temper({"data", "train-tokenizer", path("text.txt"), "--vocab-size", "280", "--out", path("tokenizer")});
    EXPECT_EQ(result.exit_code, 0) << result.output;
    directory_.write("data.jsonl", "{\"prompt\": \"say it\", \"completion\": \"it\"}\n");
    directory_.write("run.toml", R"(
[model]
config = ")" + path("config.json") + R"("
tokenizer = ")" + path("tokenizer") + R"("
[data]
train = ")" + path("data.jsonl") + R"("
[train]
steps = 2
precision = "fp32"
tokens_per_micro_batch = 64
[output]
dir = ")" + path("out") + "\"\n");
  }

  std::string path(const std::string& name) const { return (directory_.path() / name).string(); }
  std::vector<std::string> train(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments = {"train", path("run.toml")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  // A copy of a fixture's model that a test may spoil.
  fs::path model_copy() const {
    const fs::path copy = directory_.path() / "model";
    fs::create_directories(copy);
    for (const char* name : {"config.json", "model.safetensors"})
      fs::copy_file(fixture("sliding") / name, copy / name, fs::copy_options::overwrite_existing);
    return copy;
  }
  std::vector<std::string> verify(const fs::path& model) const {
    directory_.write("tokens.jsonl", "{\"input_ids\": [1, 2, 3]}\n");
    return {"verify", model, "--input", path("tokens.jsonl"), "--dump", path("dump.safetensors")};
  }

  ScratchDir directory_;
  std::string config_ = R"({"model_type": "deepseek_v4", "vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "head_dim": 8, "qk_rope_head_dim": 4, "partial_rotary_factor": 0.5, "q_lora_rank": 8,
    "o_groups": 1, "o_lora_rank": 8, "sliding_window": 8, "layer_types": ["sliding_attention"],
    "mlp_layer_types": ["moe"], "n_routed_experts": 2, "num_experts_per_tok": 1, "n_shared_experts": 1,
    "moe_intermediate_size": 8, "index_n_heads": 1, "index_head_dim": 4, "index_topk": 2, "hc_mult": 4,
    "max_position_embeddings": 256})";
};

TEST_F(BadInput, TheRunItselfIsGood) {
  const RunResult result = run_temper(train());
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_TRUE(fs::exists(path("out/model/model.safetensors")));
  EXPECT_TRUE(fs::exists(path("out/metrics.jsonl")));
}

TEST_F(BadInput, CommandLine) {
  expect_refused({}, {"train", "verify", "generate"});
  expect_refused({"trian"}, {"trian"});
  expect_refused({"train"}, {"no run file"});
  expect_refused({"generate", path("out")}, {"--prompt"});
  EXPECT_EQ(run_temper({"--help"}).exit_code, 0);
  EXPECT_EQ(run_temper({"train", "--help-keys"}).exit_code, 0);
}

TEST_F(BadInput, RunFile) {
  expect_refused({"train", path("nowhere.toml")}, {"nowhere.toml"});
  directory_.write("broken.toml", "[train\nsteps = 1\n");
  expect_refused({"train", path("broken.toml")}, {"broken.toml:1"});
  expect_refused(train({"--set", "train.stesp=3"}), {"train.stesp", "train.steps"});
  expect_refused(train({"--set", "train.steps=many"}), {"train.steps", "many"});
  expect_refused(train({"--set", "train.objective=dpo"}), {"dpo"});
  EXPECT_FALSE(fs::exists(path("out/metrics.jsonl")));
}

TEST_F(BadInput, Config) {
  directory_.write("config.json", config_.substr(0, config_.size() - 1) + ", \"sliding_windwo\": 9}");
  expect_refused(train(), {"sliding_windwo", "sliding_window"});
  directory_.write("config.json", config_.substr(0, config_.size() - 1) + ", \"o_groups\": 3}");
  expect_refused(train(), {"o_groups"});
  directory_.write("config.json", "{\"model_type\": ");
  expect_refused(train(), {"config.json"});
  EXPECT_FALSE(fs::exists(path("out/metrics.jsonl")));
}

TEST_F(BadInput, Weights) {
  const fs::path model = model_copy();
  const std::string good = read_file(model / "model.safetensors");
  const auto spoil = [&](const std::string& contents) {
    std::ofstream(model / "model.safetensors", std::ios::binary) << contents;
  };
  spoil(good.substr(0, good.size() - 100));
  expect_refused(verify(model), {"model.safetensors"});
  spoil(std::string("\xff\xff\xff\x7f\0\0\0\0", 8) + good.substr(8));
  expect_refused(verify(model), {"model.safetensors"});
  std::string renamed = good;
  renamed.replace(renamed.find("norm.weight"), 11, "nrom.weight");
  spoil(renamed);
  expect_refused(verify(model), {"nrom.weight"});
  std::string integers = good;
  integers.replace(integers.find("\"F32\""), 5, "\"I32\"");
  spoil(integers);
  expect_refused(verify(model), {"I32"});
  fs::remove(model / "model.safetensors");
  expect_refused(verify(model), {"model.safetensors"});
  fs::remove(model / "config.json");
  expect_refused(verify(model), {"config.json"});
  EXPECT_FALSE(fs::exists(path("dump.safetensors")));
}

TEST_F(BadInput, Data) {
  const std::string good = "{\"prompt\": \"a\", \"completion\": \"b\"}\n";
  directory_.write("data.jsonl", good + "{\"prompt\": \"a\", \n");
  expect_refused(train(), {"data.jsonl:2"});
  directory_.write("data.jsonl", good + "{\"question\": \"a\"}\n");
  expect_refused(train(), {"data.jsonl:2", "messages"});
  directory_.write("data.jsonl", good + "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n");
  expect_refused(train(), {"data.jsonl:2"});
  fs::remove(path("data.jsonl"));
  expect_refused(train(), {"data.jsonl"});
  EXPECT_FALSE(fs::exists(path("out/metrics.jsonl")));
}

TEST_F(BadInput, ExamplesLongerThanTheRowAreCountedAndCutOrDropped) {
  directory_.write("data.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"a\", \"completion\": \"" +
                                     std::string(200, 'z') + "\"}\n");
  const RunResult cut = run_temper(train());
  EXPECT_EQ(cut.exit_code, 0) << cut.output;
  EXPECT_NE(cut.output.find("1 cut"), std::string::npos) << cut.output;
  const RunResult dropped = run_temper(train({"--set", "data.over_long=drop", "--set", "output.dir=" + path("other")}));
  EXPECT_EQ(dropped.exit_code, 0) << dropped.output;
  EXPECT_NE(dropped.output.find("1 dropped as too long"), std::string::npos) << dropped.output;
}

TEST_F(BadInput, TokenizerAndModelThatDoNotBelongTogether) {
  std::string small = config_;
  small.replace(small.find("300"), 3, "100");
  directory_.write("config.json", small);
  expect_refused(train(), {"100", "vocab_size"});
}

TEST_F(BadInput, OutputDirectory) {
  fs::create_directory(path("out"));
  directory_.write("out/precious.txt", "mine");
  expect_refused(train(), {path("out"), "--fresh --force"});
  EXPECT_EQ(read_file(path("out/precious.txt")), "mine");
  expect_refused(train({"--set", "output.dir=" + path("data.jsonl") + "/below"}), {"data.jsonl"});
}

TEST_F(BadInput, SizesWhoseProductExceedsEveryNumberAreRefusedBeforeMemoryIsAskedFor) {
  expect_refused(train({"--set", "train.tokens_per_micro_batch=1000000000000000000"}), {"exceeds every memory"});
  std::string huge = config_;
  for (const auto& [from, to] :
       std::map<std::string, std::string>{{"\"vocab_size\": 300", "\"vocab_size\": 16777216"},
                                          {"\"hidden_size\": 16", "\"hidden_size\": 1048576"},
                                          {"experts\": 2", "experts\": 65536"},
                                          {"intermediate_size\": 8", "intermediate_size\": 1048576"}})
    huge.replace(huge.find(from), from.size(), to);
  directory_.write("config.json", huge);
  expect_refused(train(), {"experts", "exceeds every memory"});
}

TEST_F(BadInput, NotEnoughMemory) {
  expect_refused(train({"--set", "train.tokens_per_micro_batch=1000000000"}), {"free", "saved"});
}

}  // namespace
}  // namespace temper::test

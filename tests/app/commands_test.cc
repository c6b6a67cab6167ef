// The commands on a model that the program itself has trained: each does its job and agrees with the others.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "app/run_binary.h"
#include "base/file.h"
#include "base/scratch_dir.h"

namespace temper::test {
namespace {

using testing::HasSubstr;

// One model for all tests: a layer of each kind, taught three answers by heart.
class Commands : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    directory_ = new ScratchDir;
    directory_->write("config.json", R"({"model_type": "deepseek_v4", "vocab_size": 300, "hidden_size": 32,
      "num_hidden_layers": 3, "num_attention_heads": 2, "head_dim": 16, "qk_rope_head_dim": 8,
      "partial_rotary_factor": 0.5, "q_lora_rank": 16, "o_groups": 1, "o_lora_rank": 16, "sliding_window": 8,
      "layer_types": ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"],
      "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 8},
      "mlp_layer_types": ["hash_moe", "moe", "moe"], "n_routed_experts": 4, "num_experts_per_tok": 2,
      "n_shared_experts": 1, "moe_intermediate_size": 16, "index_n_heads": 2, "index_head_dim": 8, "index_topk": 4,
      "hc_mult": 4, "max_position_embeddings": 256})");
    directory_->write("data.jsonl",
                      "{\"prompt\": \"one\", \"completion\": \"w ah n\"}\n"
                      "{\"prompt\": \"two\", \"completion\": \"t uw\"}\n"
                      "{\"prompt\": \"three\", \"completion\": \"th r iy\"}\n");
    run({"data", "train-tokenizer", path("data.jsonl"), "--vocab-size", "280", "--out", path("tokenizer")});
    directory_->write("run.toml", "[model]\nconfig = \"" + path("config.json") + "\"\ntokenizer = \"" +
                                      path("tokenizer") + "\"\n[data]\ntrain = \"" + path("data.jsonl") +
                                      "\"\n[train]\nsteps = 60\nprecision = \"fp32\"\ntokens_per_micro_batch = 64\n"
                                      "[optimizer]\nlr = 2e-2\nmin_lr = 2e-3\n[output]\ndir = \"" +
                                      path("out") + "\"\n");
    run({"train", path("run.toml"), "--json", path("train.json")});
  }
  static void TearDownTestSuite() { delete directory_; }

  static std::string path(const std::string& name) { return (directory_->path() / name).string(); }
  static std::string run(const std::vector<std::string>& arguments) {
    const RunResult result = run_temper(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.output;
    return result.output;
  }
  static nlohmann::json read_json(const std::string& name) { return nlohmann::json::parse(read_file(path(name))); }

  static ScratchDir* directory_;
};
ScratchDir* Commands::directory_ = nullptr;

TEST_F(Commands, TrainReportsARun) {
  const nlohmann::json summary = read_json("train.json");
  EXPECT_EQ(summary.at("num_steps"), 60);
  EXPECT_GT(summary.at("first_loss").get<double>(), 5);
  EXPECT_LT(summary.at("last_loss").get<double>(), 0.5);
  EXPECT_GT(summary.at("peak_memory_bytes").get<int64_t>(), 0);
}

TEST_F(Commands, EvalScoresAnswersThatItKnows) {
  run({"eval", path("out/model"), path("data.jsonl"), "--exact-match", "--max-new-tokens", "16", "--json",
       path("eval.json"), "--answers", path("answers.jsonl")});
  const nlohmann::json result = read_json("eval.json");
  EXPECT_LT(result.at("loss").get<double>(), 0.5);
  EXPECT_EQ(result.at("exact_match"), 1.0);
  EXPECT_EQ(result.at("error_rate"), 0.0);
  EXPECT_EQ(result.at("num_questions"), 3);
  std::istringstream lines(read_file(path("answers.jsonl")));
  std::string first;
  std::getline(lines, first);
  const auto answer = nlohmann::json::parse(first);
  EXPECT_EQ(answer.at("prompt"), "one");
  EXPECT_EQ(answer.at("given"), "w ah n");
}

TEST_F(Commands, GenerateAnswersAPromptAndAFile) {
  EXPECT_EQ(run({"generate", path("out/model"), "--prompt", "two", "--max-new-tokens", "16"}), "t uw\n");
  directory_->write("ask.jsonl",
                    "{\"messages\": [{\"role\": \"user\", \"content\": \"three\"}]}\n"
                    "{\"messages\": [{\"role\": \"user\", \"content\": \"one\"}]}\n");
  EXPECT_EQ(run({"generate", path("out/model"), "--messages", path("ask.jsonl"), "--max-new-tokens", "16"}),
            "th r iy\nw ah n\n");
}

TEST_F(Commands, SamplingDependsOnTheSeedAlone) {
  const auto sample = [&](const char* seed) {
    return run({"generate", path("out/model"), "--prompt", "zz top", "--temperature", "5", "--max-new-tokens", "20",
                "--seed", seed});
  };
  EXPECT_EQ(sample("1"), sample("1"));
  EXPECT_NE(sample("1"), sample("2"));
}

TEST_F(Commands, GoesOnFromItsOwnModel) {
  run({"train", path("run.toml"), "--set", "model.config=", "--set", "model.path=" + path("out/model"), "--set",
       "train.steps=2", "--set", "optimizer.lr=0", "--set", "optimizer.min_lr=0", "--set", "output.dir=" + path("next"),
       "--json", path("next.json")});
  EXPECT_LT(read_json("next.json").at("first_loss").get<double>(), 0.5);
  EXPECT_EQ(read_file(path("next/model/model.safetensors")), read_file(path("out/model/model.safetensors")));
}

TEST_F(Commands, InspectShowsModelsFilesAndDevices) {
  const std::string model = run({"inspect", path("out/model")});
  EXPECT_THAT(model, HasSubstr("sliding/hash csa/score hca/score"));
  EXPECT_THAT(model, HasSubstr("F32"));
  EXPECT_THAT(run({"inspect", path("out/model/model.safetensors")}), HasSubstr("model.embed_tokens.weight"));
  EXPECT_THAT(run({"inspect"}), HasSubstr("cpu"));
}

TEST_F(Commands, ChatEndsWithItsInput) { EXPECT_THAT(run({"chat", path("out/model")}), HasSubstr("/quit")); }

TEST_F(Commands, StatsCountTrainedTokens) {
  EXPECT_THAT(run({"data", "stats", path("data.jsonl"), "--tokenizer", path("tokenizer")}), HasSubstr("3 records"));
}

}  // namespace
}  // namespace temper::test

// Whole runs of the tiny model: from a run file to a model directory.
#include "train/trainer.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/weight_source.h"
#include "train/answers.h"
#include "train/run_test_base.h"

namespace temper::train {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using testing::read_lines;
using testing::snapshot;
using Json = nlohmann::ordered_json;

class TrainerTest : public testing::RunTest {
 protected:
  void expect_refusal(const std::vector<std::string>& overrides, const std::vector<std::string>& parts) const {
    try {
      Trainer trainer(config(overrides));
      ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(exit_code(error.code()), 2);
      for (const auto& part : parts) EXPECT_THAT(error.what(), HasSubstr(part));
    }
  }
};

std::vector<std::string> machine_fields(const Json& line) {
  std::vector<std::string> names;
  for (const auto& [name, value] : line.items())
    if (is_machine_field(name)) names.push_back(name);
  return names;
}

TEST_F(TrainerTest, ARunLearnsReportsAndSaves) {
  Trainer trainer(config({"output.eval_every=4", "output.save_every=4"}));
  const TrainSummary summary = trainer.train();
  EXPECT_EQ(summary.num_steps, 8);
  EXPECT_FALSE(summary.interrupted);
  EXPECT_NEAR(summary.first_loss, std::log(288.0), 0.3);
  EXPECT_LT(summary.last_loss, summary.first_loss - 0.3);
  ASSERT_TRUE(summary.heldout_before && summary.heldout_after);
  EXPECT_LT(summary.heldout_after->loss, summary.heldout_before->loss - 0.3);
  EXPECT_GT(summary.mfu, 0);
  EXPECT_EQ(summary.planned_bytes, trainer.session().allocated_bytes());

  int64_t num_steps = 0, num_evals = 0;
  for (const Json& line : read_lines(at("run/metrics.jsonl"))) {
    if (line.contains("eval_loss")) {
      ++num_evals;
      continue;
    }
    EXPECT_EQ(line["step"], ++num_steps);
    for (const char* key :
         {"loss", "grad_norm", "learning_rate", "mean_token_accuracy", "num_tokens", "epoch", "tokens_per_second",
          "mfu", "step_ms", "data_ms", "forward_ms", "backward_ms", "optimizer_ms", "memory_bytes", "grad_norm/mhc",
          "update_ratio/mhc", "router_entropy", "wall_time"})
      EXPECT_TRUE(line.contains(key)) << key;
    int64_t tokens_of_sources = 0;
    for (const auto& [name, value] : line.items())
      if (name.starts_with("tokens_by_source/")) tokens_of_sources += value.get<int64_t>();
    EXPECT_EQ(tokens_of_sources, line["num_tokens"]);
    EXPECT_GE(line["step_ms"].get<double>(), line["forward_ms"].get<double>() + line["backward_ms"].get<double>());
    if (num_steps == 1) {
      EXPECT_EQ(line["learning_rate"], 0);
    } else if (num_steps == 3) {
      EXPECT_EQ(line["learning_rate"], 1e-2);
    }
  }
  EXPECT_EQ(num_steps, 8);
  EXPECT_EQ(num_evals, 3);  // before, after four steps, after all
  for (const char* file : {"run/model/config.json", "run/model/tokenizer.json", "run/step-4/config.json"})
    EXPECT_TRUE(fs::exists(at(file))) << file;
}

// Every field that is mathematics is equal bit for bit in the same run again.
TEST_F(TrainerTest, EqualRunsTellTheSame) {
  for (const char* precision : {"fp32", "bf16"}) {
    std::vector<Json> runs[2];
    for (std::vector<Json>& lines : runs) {
      const std::string name = fmt::format("{}-{}", precision, &lines - runs);
      Trainer(config({set("output.dir", name), std::string("train.precision=") + precision, "train.steps=3"})).train();
      lines = read_lines(dir_ / name / "metrics.jsonl");
      ASSERT_EQ(lines.size(), 5u);
      for (Json& line : lines)
        for (const std::string& field : machine_fields(line)) line.erase(field);
    }
    EXPECT_EQ(runs[1], runs[0]) << precision;
  }
}

TEST_F(TrainerTest, FineTuningStartsWhereTheBaseEnded) {
  const TrainSummary base = Trainer(config()).train();
  const TrainSummary tuned = Trainer(config({"model.config=\"\"", "model.tokenizer=\"\"",
                                             set("model.path", "run/model"), set("output.dir", "sft"),
                                             "train.objective=sft", "train.steps=2", set("data.train", "pairs.jsonl")}))
                                 .train();
  EXPECT_DOUBLE_EQ(tuned.heldout_before->loss, base.heldout_after->loss);
}

// The prediction block, the indexer and the router's biases are trained with the model; what is frozen is saved as it
// was.
TEST_F(TrainerTest, AuxiliaryLossesFallAndFrozenTensorsStay) {
  Trainer base(config({"train.steps=1", "optimizer.warmup_steps=0", set("output.dir", "base")}));
  const fs::path base_dir = base.train().model_dir;
  const std::vector<std::string> overrides = {"model.config=\"\"",
                                              "model.path=\"" + base_dir.string() + "\"",
                                              "train.steps=12",
                                              "train.mtp_weight=0.3",
                                              "train.balance_weight=0.01",
                                              "train.indexer=train",
                                              "train.bias_update_speed=0.25",
                                              "train.freeze=[\"model.embed_tokens.weight\", \"*.sinks\"]",
                                              set("output.dir", "tuned")};
  Trainer trainer(config(overrides));
  const fs::path tuned_dir = trainer.train().model_dir;
  const auto lines = read_lines(dir_ / "tuned" / "metrics.jsonl");
  std::vector<Json> steps;
  for (const Json& line : lines)
    if (line.contains("loss")) steps.push_back(line);
  ASSERT_EQ(steps.size(), 12u);
  for (const char* loss : {"loss", "mtp_loss", "indexer_loss"})
    EXPECT_LT(steps.back()[loss].get<double>(), steps.front()[loss].get<double>()) << loss;
  EXPECT_GE(steps.back()["balance_loss"].get<double>(), 1);
  EXPECT_GE(steps.back()["expert_overload"].get<double>(), 1);

  const checkpoint::WeightSource before(base_dir), after(tuned_dir);
  EXPECT_EQ(before.mtp_kind(), checkpoint::MtpKind::kV4);
  std::map<std::string, int> unchanged, total;
  for (const auto& tensor : after.tensors()) {
    const auto old = before.tensors_of(tensor.name->parameter);
    ASSERT_FALSE(old.empty()) << tensor.stored_name();
    if (old.size() != 1) continue;  // experts
    const auto& a = *tensor.encoded.weight;
    const auto& b = *old.front()->encoded.weight;
    ++total[a.name];
    unchanged[a.name] += std::equal(a.data, a.data + a.num_bytes(), b.data, b.data + b.num_bytes());
  }
  const auto is_unchanged = [&](std::string_view part) {
    int found = 0, same = 0;
    for (const auto& [name, count] : total)
      if (name.find(part) != name.npos) found += count, same += unchanged[name];
    EXPECT_GT(found, 0) << part;
    return same == found ? "all" : same == 0 ? "none" : "some";
  };
  EXPECT_STREQ(is_unchanged("embed"), "all");
  EXPECT_STREQ(is_unchanged("attn_sink"), "all");
  EXPECT_STREQ(is_unchanged("indexer"), "none");
  EXPECT_STRNE(is_unchanged("gate.bias"), "all");
  EXPECT_STREQ(is_unchanged("mtp.0.e_proj"), "none");
}

TEST_F(TrainerTest, WarmUpOfTheIndexerTrainsNothingElse) {
  Trainer base(config({"train.steps=1", "optimizer.warmup_steps=0", set("output.dir", "base")}));
  const fs::path base_dir = base.train().model_dir;
  Trainer trainer(config({"model.config=\"\"", "model.path=\"" + base_dir.string() + "\"", "train.indexer=warm-up",
                          "train.steps=6", set("output.dir", "tuned")}));
  trainer.train();
  const auto lines = read_lines(dir_ / "tuned" / "metrics.jsonl");
  EXPECT_EQ(lines[1]["loss"], lines[6]["loss"]) << "the model itself must not move";
  EXPECT_LT(lines[6]["indexer_loss"].get<double>(), lines[1]["indexer_loss"].get<double>());
}

TEST_F(TrainerTest, EqualRunsAreEqualBitForBit) {
  std::vector<std::vector<double>> losses;
  for (const char* name : {"one", "two"}) {
    Trainer(config({set("output.dir", name), "train.steps=4"})).train();
    losses.emplace_back();
    for (const Json& line : read_lines(dir_ / name / "metrics.jsonl")) {
      if (line.contains("loss")) losses.back().push_back(line["loss"]);
    }
  }
  ASSERT_EQ(losses[0].size(), 4u);
  EXPECT_EQ(losses[0], losses[1]);
  EXPECT_EQ(read_file(at("one/model/model.safetensors")), read_file(at("two/model/model.safetensors")));
}

TEST_F(TrainerTest, QuestionsForSamplesAreReadBeforeTheFirstStep) {
  expect_refusal({"eval.samples=3"}, {"text.jsonl:1", "a text has no question and answer"});
}

TEST_F(TrainerTest, SamplesAreTheModelsAnswersToHeldOutQuestions) {
  const RunConfig run = config({"train.objective=sft", "train.steps=2", set("data.train", "pairs.jsonl"),
                                set("data.eval", "pairs.jsonl"), "eval.samples=1", "eval.max_new_tokens=5"});
  write_samples(run, Trainer(run).train().model_dir);
  const auto lines = read_lines(at("run/samples.jsonl"));
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0]["prompt"], "word?");
  EXPECT_EQ(lines[0]["expected"], "text, and the word");
  EXPECT_TRUE(lines[0].contains("given") && lines[0]["exact"] == (lines[0]["given"] == lines[0]["expected"]));
}

TEST_F(TrainerTest, EpochsSetTheNumberOfSteps) {
  const TrainSummary summary =
      Trainer(config({"train.steps=0", "train.epochs=3", "train.gradient_accumulation=1"})).train();
  EXPECT_EQ(read_lines(at("run/metrics.jsonl")).back()["step"], summary.num_steps);
  EXPECT_GE(summary.num_steps, 3);
}

TEST_F(TrainerTest, ATimeLimitEndsTheRunInOrder) {
  const TrainSummary summary = Trainer(config({"train.max_seconds=1e-9"})).train();
  EXPECT_EQ(summary.num_steps, 1);
  EXPECT_TRUE(summary.interrupted);
  EXPECT_TRUE(fs::exists(at("run/model/config.json")));
}

TEST_F(TrainerTest, OutputThatIsNotEmptyIsRefusedAndUntouched) {
  fs::create_directories(at("run"));
  write("run/notes.txt", "mine");
  const auto before = snapshot(at("run"));
  expect_refusal({}, {at("run"), "--fresh --force"});
  EXPECT_EQ(snapshot(at("run")), before);
  EXPECT_NO_THROW(Trainer(config({"train.steps=2"}), Start::kFreshForce).train());
  EXPECT_EQ(read_file(at("run/notes.txt")), "mine");
}

TEST_F(TrainerTest, BadInputIsRefusedBeforeTheFirstStep) {
  expect_refusal({set("output.dir", "config.json/run")}, {"config.json/run"});
  expect_refusal({set("data.train", "nothing.jsonl")}, {"nothing.jsonl"});
  expect_refusal({set("data.train", "*.nothing")}, {"*.nothing", "no file matches"});
  write("broken.jsonl", "{\"text\": \"good\"}\n{\"text\": \n");
  expect_refusal({set("data.train", "broken.jsonl")}, {"broken.jsonl:2"});
  Json small = Json::parse(read_file(at("config.json")));
  small["vocab_size"] = 64;
  write("small.json", small.dump());
  expect_refusal({set("model.config", "small.json")}, {"280", "64"});
  expect_refusal({"optimizer.warmup_steps=9"}, {"warm-up of 9 steps", "8 steps"});
  expect_refusal({"train.tokens_per_micro_batch=1000000000"}, {"free", "saved activations"});
  EXPECT_FALSE(fs::exists(at("run/metrics.jsonl")));
}

}  // namespace
}  // namespace temper::train

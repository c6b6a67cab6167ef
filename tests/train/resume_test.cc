// A run that is interrupted, however often, is the run that was not.
#include <fstream>

#include "base/error.h"
#include "base/file.h"
#include "base/simulated_disk.h"
#include "train/run_test_base.h"
#include "train/trainer.h"

namespace temper::train {
namespace {

namespace fs = std::filesystem;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using testing::mathematics_in;
using testing::mathematics_of;
using testing::read_lines;
using testing::snapshot;
using Json = nlohmann::ordered_json;

class ResumeTest : public testing::RunTest {
 protected:
  // Everything that has a state of its own is on: moments, router biases, the prediction block, the indexer.
  std::vector<std::string> overrides(const std::string& precision, const std::string& dir) const {
    return {
        "train.precision=" + precision, set("output.dir", dir), set("model.config", "mtp.json"), "train.mtp_weight=0.3",
        "train.bias_update_speed=0.01", "train.indexer=train",  "output.eval_every=3",           "checkpoint.every=2"};
  }

  TrainSummary run(const std::vector<std::string>& settings, const std::string& more = "log_every=1") const {
    std::vector<std::string> all = settings;
    all.push_back("output." + more);
    return Trainer(config(all)).train();
  }

  // What a process leaves that was killed some time after it had saved the state of `step`.
  void cut_back(const std::string& dir, int64_t step) const {
    for (const auto& entry : fs::directory_iterator(dir_ / dir / "state"))
      if (std::stoll(entry.path().filename().string().substr(5)) > step) fs::remove_all(entry.path());
    fs::remove_all(dir_ / dir / "model");
  }

  // Makes the directory of the run on a disk of its own, as the system's disk has it.
  void prepare(test::SimulatedDisk& disk) const {
    disk.make_directories(at("run"));
    for (fs::path path = at("run"); path.has_relative_path(); path = path.parent_path())
      disk.sync_directory(path.parent_path());
  }

  void expect_equal(const std::string& one, const std::string& other, const std::string& what) const {
    EXPECT_EQ(mathematics_of(dir_ / one / "metrics.jsonl"), mathematics_of(dir_ / other / "metrics.jsonl")) << what;
    EXPECT_EQ(read_file(dir_ / one / "model/model.safetensors"), read_file(dir_ / other / "model/model.safetensors"))
        << what;
  }

  void expect_refusal(const std::vector<std::string>& settings, const std::vector<std::string>& parts,
                      Start start = Start::kResume) const {
    try {
      Trainer trainer(config(settings), start);
      ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(exit_code(error.code()), 2);
      for (const auto& part : parts) EXPECT_THAT(error.what(), HasSubstr(part));
    }
  }
};

// Eight interruptions: the state of every step was written by a process that had taken up the one before.
TEST_F(ResumeTest, ARunInterruptedAfterEveryStepIsTheUninterruptedOne) {
  for (const std::string precision : {"fp32", "bf16"}) {
    const TrainSummary whole = run(overrides(precision, "whole_" + precision));
    std::vector<std::string> settings = overrides(precision, "cut_" + precision);
    settings.insert(settings.end(), {"checkpoint.every=1", "checkpoint.keep_last=100"});
    run(settings);
    for (int64_t step = 1; step < 8; ++step) {
      cut_back("cut_" + precision, step);
      const TrainSummary rest = run(settings);
      EXPECT_EQ(rest.chain, whole.chain) << precision << " after step " << step;
      EXPECT_EQ(rest.num_tokens, whole.num_tokens);
      EXPECT_DOUBLE_EQ(rest.heldout_before->loss, whole.heldout_before->loss);
    }
    expect_equal("whole_" + precision, "cut_" + precision, precision);
  }
}

// Epochs of packed rows: a state in the middle of an epoch and of a window of packing.
TEST_F(ResumeTest, TheOrderOfExamplesGoesOnInTheMiddleOfAnEpoch) {
  std::string lines;
  for (int i = 0; i < 23; ++i) lines += Json{{"text", "the word " + std::string(i % 7 + 1, 'w')}}.dump() + "\n";
  write("many.jsonl", lines);
  std::vector<std::string> settings = {
      set("data.train", "many.jsonl"),   "train.steps=0",      "train.epochs=3",
      "train.tokens_per_micro_batch=32", "checkpoint.every=1", "checkpoint.keep_last=100"};
  settings.push_back(set("output.dir", "whole"));
  const TrainSummary whole = run(settings);
  settings.back() = set("output.dir", "cut");
  run(settings);
  for (int64_t step = 1; step < whole.num_steps; step += 2) {
    cut_back("cut", step);
    EXPECT_EQ(run(settings).chain, whole.chain) << step;
  }
  expect_equal("whole", "cut", "epochs");
}

TEST_F(ResumeTest, WhereStatesAreKeptAndWhetherTheyAreCopiedAsideChangesNothing) {
  const TrainSummary staged = run(overrides("bf16", "staged"));
  std::vector<std::string> settings = overrides("bf16", "in_place");
  settings.insert(settings.end(), {"checkpoint.staging=false", "checkpoint.every=1", "checkpoint.verify=true"});
  EXPECT_EQ(run(settings).chain, staged.chain);
  expect_equal("staged", "in_place", "staging");
  settings = overrides("bf16", "without");
  settings.push_back("checkpoint.every=0");
  const TrainSummary without = run(settings);
  EXPECT_EQ(without.chain, staged.chain);
  EXPECT_EQ(without.num_states, 1) << "the last state is always saved";
}

TEST_F(ResumeTest, ARunWithoutStatesBeginsAnew) {
  const auto settings = overrides("fp32", "run");
  const TrainSummary whole = run(settings);
  fs::remove_all(at("run/state"));
  fs::remove_all(at("run/model"));
  EXPECT_EQ(run(settings).chain, whole.chain);
  EXPECT_EQ(read_lines(at("run/metrics.jsonl")).size(), 8u + 4u) << "the old lines are gone";
}

TEST_F(ResumeTest, ADamagedStateIsPassedOver) {
  auto settings = overrides("fp32", "run");
  const TrainSummary whole = run(settings);
  fs::remove_all(at("run/model"));
  const fs::path newest = dir_ / "run/state/step-00000008/tensors-00000.safetensors";
  std::string bytes = read_file(newest);
  bytes[bytes.size() / 2] ^= 1;
  std::ofstream(newest) << bytes;
  ::testing::internal::CaptureStdout();
  EXPECT_EQ(run(settings).chain, whole.chain);
  const std::string output = ::testing::internal::GetCapturedStdout();
  EXPECT_THAT(output, HasSubstr("damaged states are passed over:\n  step 8: "));
  EXPECT_THAT(output, HasSubstr("going on after step 6 of 8"));

  for (const auto& state : fs::directory_iterator(at("run/state"))) fs::resize_file(state.path() / "manifest.json", 9);
  const auto before = snapshot(at("run"));
  expect_refusal(settings, {"no state that is whole", "step 6: ", "step 8: ", "--fresh --force"});
  EXPECT_EQ(snapshot(at("run")), before);
}

TEST_F(ResumeTest, AFullDiskDoesNotStopTheRunAndTheLastStateStays) {
  const std::string metrics = at("run/metrics.jsonl");
  auto settings = overrides("fp32", "run");
  settings.insert(settings.end(), {"checkpoint.every=1", "checkpoint.keep_last=1", "output.log_every=100"});
  test::SimulatedDisk roomy, full;
  prepare(roomy), prepare(full);
  const TrainSummary whole = Trainer(config(settings), Start::kResume, roomy).train();
  fs::remove_all(at("run"));

  full.set_capacity(roomy.used_bytes() * 3 / 2);  // one state, not two
  ::testing::internal::CaptureStdout();
  const TrainSummary summary = Trainer(config(settings), Start::kResume, full).train();
  const std::string output = ::testing::internal::GetCapturedStdout();
  EXPECT_EQ(summary.chain, whole.chain);
  EXPECT_EQ(summary.num_states, 1);
  EXPECT_THAT(output, HasSubstr("warning: the state of step 2 was not saved: "));
  EXPECT_THAT(output, HasSubstr("the state of step 1 stays, the next try is after step "));
  EXPECT_THAT(output, ContainsRegex("the state of step 8 was not saved: [^\n]*; the state of step 1 stays\n"));
  EXPECT_TRUE(fs::exists(at("run/model/config.json")));

  full.set_capacity(-1);
  ::testing::internal::CaptureStdout();
  EXPECT_EQ(Trainer(config(settings), Start::kResume, full).train().chain, whole.chain);
  EXPECT_THAT(::testing::internal::GetCapturedStdout(), HasSubstr("going on after step 1 of 8"));
  EXPECT_EQ(mathematics_in(full.get(metrics)), mathematics_in(roomy.get(metrics)));
}

// The machine stops at any operation on the disk; what was not synced is lost, kept or torn.
TEST_F(ResumeTest, ACrashOfTheMachineLosesNothingThatAStateNames) {
  const std::string metrics = at("run/metrics.jsonl"), events = at("run/events.out.tfevents.temper");
  auto settings = overrides("fp32", "run");
  settings.insert(settings.end(), {"checkpoint.every=2", "train.steps=6", "output.log_every=100"});
  test::SimulatedDisk disk;
  prepare(disk);
  const int64_t first = disk.num_operations();
  const TrainSummary whole = Trainer(config(settings), Start::kResume, disk).train();
  const int64_t num_operations = disk.num_operations() - first;
  ASSERT_GT(num_operations, 50);
  for (int crash = 0; crash < 8; ++crash) {
    fs::remove_all(at("run"));
    test::SimulatedDisk crashing;
    prepare(crashing);
    crashing.lose_power_at(1 + num_operations * crash / 8);
    ::testing::internal::CaptureStdout();
    try {
      Trainer(config(settings), Start::kResume, crashing).train();
    } catch (const Error& error) {  // before the first step there is nothing to go on with
      EXPECT_EQ(error.code(), ErrorCode::kIo);
    }
    crashing.crash(static_cast<uint64_t>(crash));
    EXPECT_EQ(Trainer(config(settings), Start::kResume, crashing).train().chain, whole.chain) << crash;
    ::testing::internal::GetCapturedStdout();
    EXPECT_EQ(mathematics_in(crashing.get(metrics)), mathematics_in(disk.get(metrics))) << crash;
    EXPECT_EQ(crashing.get(events).size(), disk.get(events).size()) << crash;
  }
}

TEST_F(ResumeTest, OtherMathematicsIsRefusedWithTheDifferences) {
  auto settings = overrides("fp32", "run");
  run(settings);
  const auto before = snapshot(at("run"));
  auto changed = settings;
  changed.insert(changed.end(), {"optimizer.lr=2e-2", "train.freeze=[\"*.sinks\"]"});
  expect_refusal(changed, {"state of step 8", "optimizer.lr: 0.01, now 0.02", "train.freeze: [], now [\"*.sinks\"]"});
  changed = settings;
  changed.push_back(set("data.train", "pairs.jsonl"));
  expect_refusal(changed, {"other data"});
  Json model = Json::parse(read_file(at("mtp.json")));
  model["rms_norm_eps"] = 1e-5;
  write("other.json", model.dump());
  changed = settings;
  changed.push_back(set("model.config", "other.json"));
  expect_refusal(changed, {"other.json"});
  EXPECT_EQ(snapshot(at("run")), before);
}

TEST_F(ResumeTest, HarmlessKeysMayChange) {
  auto settings = overrides("fp32", "run");
  const TrainSummary whole = run(settings);
  cut_back("run", 6);
  fs::create_directory(at("moved"));
  fs::copy_file(at("text.jsonl"), at("moved/text.jsonl"));
  settings.insert(settings.end(), {set("data.train", "moved/text.jsonl"), "checkpoint.every=5", "output.eval_every=0",
                                   "train.max_seconds=1e6", "output.dtype=bf16"});
  // text.* matched text.jsonl alone: the examples are the same ones.
  const TrainSummary rest = run(settings);
  EXPECT_EQ(rest.chain, whole.chain);
}

TEST_F(ResumeTest, ARunThatIsDoneIsLeftAloneAndFreshNeedsForce) {
  const auto settings = overrides("fp32", "run");
  const TrainSummary whole = run(settings);
  const auto before = snapshot(at("run"));
  const TrainSummary again = run(settings);
  EXPECT_TRUE(again.was_done);
  EXPECT_EQ(again.chain, whole.chain);
  expect_refusal(settings, {"holds a run", "--fresh --force"}, Start::kFresh);
  EXPECT_EQ(read_file(at("run/model/model.safetensors")), before.at(at("run/model/model.safetensors")));
  EXPECT_EQ(read_file(at("run/metrics.jsonl")), before.at(at("run/metrics.jsonl")));
  write("run/notes.txt", "mine");
  EXPECT_EQ(Trainer(config(settings), Start::kFreshForce).train().chain, whole.chain);
  EXPECT_EQ(read_file(at("run/notes.txt")), "mine");
}

TEST_F(ResumeTest, TwoProcessesCannotTrainInOneDirectory) {
  const Trainer first(config(overrides("fp32", "run")));
  expect_refusal(overrides("fp32", "run"), {"another process is training"});
}

TEST_F(ResumeTest, StatesThatRetentionDoesNotNameGo) {
  auto settings = overrides("fp32", "run");
  settings.insert(settings.end(), {"checkpoint.every=1", "checkpoint.keep_last=1", "checkpoint.keep_every=4"});
  run(settings);
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(at("run/state"))) names.push_back(entry.path().filename().string());
  EXPECT_THAT(names, ::testing::UnorderedElementsAre("step-00000004", "step-00000008"));
}

}  // namespace
}  // namespace temper::train

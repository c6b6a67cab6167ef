// Whole runs with steps that are not finite: skipped, gone back from, stopped at, resumed, replayed.
#include <cmath>
#include <limits>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/forwarding_files.h"
#include "comm/world.h"
#include "train/replay.h"
#include "train/run_test_base.h"
#include "train/trainer.h"

namespace temper::train {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using testing::mathematics_of;
using Json = nlohmann::ordered_json;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// A disk that shows no state: as a network's does to a machine that has not looked again.
class StaleFiles : public test::ForwardingFiles {
 public:
  std::vector<std::string> list(const Path&) override { return {}; }
};

// 64 examples, of which the 41st has a letter that no other has. Four examples make a step, 16 steps an epoch.
class GuardedRunTest : public testing::RunTest {
 protected:
  void SetUp() override {
    RunTest::SetUp();
    std::string lines;
    for (int i = 0; i < 64; ++i)
      lines += Json{{"text", i == 40 ? "and the Zebra was in the text, and in the end the word"
                                     : "and the word was in the text, and in the end the word"}}
                   .dump() +
               "\n";
    write("rare.jsonl", lines);
  }
  std::vector<std::string> settings(const std::string& dir, const std::vector<std::string>& more) const {
    std::vector<std::string> all = {set("output.dir", dir),
                                    set("data.train", "rare.jsonl"),
                                    "data.eval=[]",
                                    "checkpoint.every=2",
                                    "checkpoint.keep_last=100",
                                    "train.steps=16",
                                    "train.tokens_per_micro_batch=64"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  // The embedding of the rare letter is not a number: the step that reads it is not finite.
  void poison(Trainer& trainer) const {
    const auto ids = trainer.tokenizer().encode("Z", false);
    for (layers::Parameter* p : trainer.session().model().parameters())
      if (p->name == "model.embed_tokens.weight") p->value.data<float>()[ids[0] * p->shape[1]] = kNan;
  }
  TrainSummary run(const std::vector<std::string>& settings) const {
    Trainer trainer(config(settings));
    if (trainer.steps_done() == 0) poison(trainer);
    return trainer.train();
  }
  std::vector<Json> lines(const std::string& dir) const { return mathematics_of(dir_ / dir / "metrics.jsonl"); }
  // Steps that left a bundle.
  std::vector<int64_t> incidents(const std::string& dir) const {
    std::vector<int64_t> steps;
    for (const auto& entry : fs::directory_iterator(dir_ / dir))
      if (const std::string name = entry.path().filename(); name.starts_with("incident-"))
        steps.push_back(std::stoll(name.substr(9)));
    return steps;
  }
};

TEST_F(GuardedRunTest, ASkippedStepLeavesTheWeightsAndIsCounted) {
  const TrainSummary summary = run(settings("run", {}));
  EXPECT_EQ(summary.num_steps, 16);
  const auto bad = incidents("run");
  ASSERT_EQ(bad.size(), 1u);
  const std::vector<Json> metrics = lines("run");
  ASSERT_EQ(metrics.size(), 16u);
  for (const Json& line : metrics) {
    const int64_t step = line["step"];
    EXPECT_EQ(line["loss"].is_null(), step == bad[0]) << line.dump();
    EXPECT_EQ(line["skipped_steps"], step >= bad[0] ? 1 : 0);
    EXPECT_EQ(line["nonfinite_steps"], step >= bad[0] ? 1 : 0);
    EXPECT_EQ(line["incidents"], step >= bad[0] ? 1 : 0);
  }
  const Json incident = Json::parse(read_file(dir_ / "run" / fmt::format("incident-{:08}", bad[0]) / "incident.json"));
  EXPECT_EQ(incident["action"], "skip_step");
  EXPECT_EQ(incident["verdict"], "reproducible");
  EXPECT_EQ(incident["first_bad"]["tensor"], "model.embed_tokens.weight");
}

TEST_F(GuardedRunTest, ARunWithAnIncidentResumesBitForBit) {
  const TrainSummary whole = run(settings("whole", {}));
  run(settings("cut", {}));
  const int64_t bad = incidents("cut").at(0);
  for (const int64_t step : {bad / 2 * 2 - 2, bad / 2 * 2 + 2}) {
    if (step < 2 || step > 14) continue;
    for (const auto& entry : fs::directory_iterator(dir_ / "cut/state"))
      if (std::stoll(entry.path().filename().string().substr(5)) > step) fs::remove_all(entry.path());
    fs::remove_all(dir_ / "cut/model");
    EXPECT_EQ(run(settings("cut", {})).chain, whole.chain);
    EXPECT_EQ(lines("cut"), lines("whole"));
    EXPECT_EQ(read_file(dir_ / "cut/model/model.safetensors"), read_file(dir_ / "whole/model/model.safetensors"));
  }
}

// The 61st attention of the run gives a NaN once: what a fault of the machine looks like.
TEST_F(GuardedRunTest, AfterATransientFaultTheRunGoesOnWithTheRepetition) {
  static int num_calls;
  num_calls = 0;
  backend::Backend faulty = backend::cpu();
  faulty.ops.attention_forward = [](backend::Stream* stream, backend::Out o_TNH, backend::Out lse_TN, backend::In q_TNH,
                                    backend::In c_JH, backend::In k_CH, backend::In sink_N, backend::KeyRanges ranges,
                                    double scale) {
    backend::cpu().ops.attention_forward(stream, o_TNH, lse_TN, q_TNH, c_JH, k_CH, sink_N, ranges, scale);
    if (++num_calls == 61) o_TNH.data<float>()[0] = static_cast<float>(kNan);
  };
  const TrainSummary sound = Trainer(config(settings("sound", {}))).train();
  const TrainSummary summary =
      Trainer(config(settings("run", {})), Start::kResume, system_files(), std::numeric_limits<int64_t>::max(), &faulty)
          .train();
  EXPECT_GT(num_calls, 61);
  EXPECT_EQ(summary.chain, sound.chain);
  EXPECT_EQ(read_file(dir_ / "run/model/model.safetensors"), read_file(dir_ / "sound/model/model.safetensors"));
  const auto bad = incidents("run");
  ASSERT_EQ(bad.size(), 1u);
  const fs::path bundle = dir_ / "run" / fmt::format("incident-{:08}", bad[0]);
  const Json incident = Json::parse(read_file(bundle / "incident.json"));
  EXPECT_EQ(incident["verdict"], "transient");
  EXPECT_EQ(incident["action"], "repeated");
  EXPECT_EQ(lines("run").back()["skipped_steps"], 0);
  EXPECT_EQ(lines("run").back()["incidents"], 1);
  EXPECT_THAT(replay(bundle).difference, HasSubstr("the fault was transient"));
}

TEST_F(GuardedRunTest, ARollbackLeavesTheStepOutTheSecondTime) {
  const std::vector<std::string> late = settings("run", {"guard.on_nonfinite=rollback"});
  const TrainSummary summary = run(late);
  EXPECT_EQ(summary.num_steps, 16);
  const int64_t bad = incidents("run").at(0);
  ASSERT_GT(bad, 10) << "choose another seed";
  const std::vector<Json> metrics = lines("run");
  // Up to the bad step, again from the state eight steps before, and on.
  const int64_t target = (bad - 8) / 2 * 2;
  ASSERT_EQ(std::ssize(metrics), (bad - 1) + (16 - target));
  for (int64_t i = 0; i < bad - 1 - target; ++i) {
    const Json &first = metrics[target + i], &again = metrics[bad - 1 + i];
    EXPECT_EQ(first["step"], again["step"]);
    EXPECT_EQ(first["loss"], again["loss"]);
    EXPECT_EQ(first["grad_norm"], again["grad_norm"]);
    EXPECT_EQ(again["skipped_steps"], 0);
  }
  const Json& left_out = metrics[2 * (bad - 1) - target];
  EXPECT_EQ(left_out["step"], bad);
  EXPECT_TRUE(left_out["loss"].is_null());
  EXPECT_EQ(metrics.back()["skipped_steps"], 1);
}

TEST_F(GuardedRunTest, ARollbackOfManyRanksGoesWhereTheFirstRankSeesAState) {
  const std::vector<std::string> many = settings("run", {"guard.on_nonfinite=rollback"});
  comm::run_ranks(2, [&](comm::Comm& world) {
    world.set_deadline(20);
    StaleFiles stale;
    Trainer trainer(config(many), Start::kResume, world.rank() == 1 ? stale : system_files(),
                    std::numeric_limits<int64_t>::max(), nullptr, &world);
    poison(trainer);
    EXPECT_EQ(trainer.train().num_steps, 16);
  });
  EXPECT_EQ(lines("run").back()["skipped_steps"], 1);
}

TEST_F(GuardedRunTest, AStopSavesTheStateBeforeTheStepAndGoesOnWhenThePolicyChanges) {
  const TrainSummary summary = run(settings("run", {"guard.on_nonfinite=stop"}));
  const int64_t bad = incidents("run").at(0);
  EXPECT_EQ(summary.num_steps, bad - 1);
  EXPECT_THAT(summary.stopped_by, HasSubstr("guard"));
  EXPECT_EQ(summary.incident_dir, dir_ / "run" / fmt::format("incident-{:08}", bad));
  const TrainSummary skipped = run(settings("skipped", {}));
  EXPECT_EQ(run(settings("run", {"guard.on_nonfinite=skip_step"})).chain, skipped.chain);
}

TEST_F(GuardedRunTest, ARollbackWithoutAStateStops) {
  const TrainSummary summary = run(settings("run", {"guard.on_nonfinite=rollback", "checkpoint.every=0"}));
  EXPECT_EQ(summary.num_steps, incidents("run").at(0) - 1);
  EXPECT_FALSE(summary.stopped_by.empty());
}

TEST_F(GuardedRunTest, AReplayFindsTheSameWritesNothingAndRefusesADamagedBundle) {
  run(settings("run", {}));
  const fs::path bundle = dir_ / "run" / fmt::format("incident-{:08}", incidents("run").at(0));
  const auto before = testing::snapshot(dir_ / "run");
  const ReplayResult result = replay(bundle);
  EXPECT_TRUE(result.reproduced) << result.difference;
  EXPECT_THAT(result.finding, HasSubstr("First bad value: model.embed_tokens.weight["));
  EXPECT_EQ(testing::snapshot(dir_ / "run"), before);

  const std::string good = read_file(bundle / "incident.json");
  Json json = Json::parse(good);
  json.erase("step");
  std::ofstream(bundle / "incident.json") << json.dump();
  EXPECT_THROW(replay(bundle), Error);
  std::ofstream(bundle / "incident.json") << good;
  std::ofstream(bundle / "batch.jsonl") << "{}\n";
  EXPECT_THAT(replay(bundle).difference, HasSubstr("not the recorded one"));
}

// Steps of many ranks, too, leave a bundle, and one rank sees what they saw.
TEST_F(GuardedRunTest, ABundleOfManyRanksIsReplayedByOne) {
  for (const std::string layout : {"layout.zero=3", "layout.pp=2"}) {
    const std::string dir = "run" + layout;
    const std::vector<std::string> many = settings(dir, {layout});
    comm::run_ranks(2, [&](comm::Comm& world) {
      Trainer trainer(config(many), Start::kResume, system_files(), std::numeric_limits<int64_t>::max(), nullptr,
                      &world);
      poison(trainer);
      trainer.train();
    });
    const fs::path bundle = dir_ / dir / fmt::format("incident-{:08}", incidents(dir).at(0));
    const Json incident = Json::parse(read_file(bundle / "incident.json"));
    EXPECT_EQ(incident["first_bad"]["tensor"], "model.embed_tokens.weight");
    const bool is_pipeline = layout == "layout.pp=2";
    EXPECT_EQ(incident["first_bad"]["rank"], 0);
    EXPECT_EQ(incident["layout"], is_pipeline ? "pp 2, zero 1" : "dp 2, zero 3");
    std::set<int64_t> ranks;
    for (const Json& of_micro_batch : incident["ranks"]) {
      EXPECT_EQ(of_micro_batch.size(), is_pipeline ? 2u : 1u);
      for (const Json& rank : of_micro_batch) ranks.insert(rank.get<int64_t>());
    }
    EXPECT_EQ(incident["ranks"].size(), 2u);
    EXPECT_EQ(ranks, (std::set<int64_t>{0, 1}));
    for (const char* name : {"statistics-00000.jsonl", "statistics-00001.jsonl"})
      EXPECT_GT(fs::file_size(bundle / name), 10'000u);
    const ReplayResult result = replay(bundle);
    EXPECT_TRUE(result.reproduced) << result.difference;
    EXPECT_THAT(result.finding, HasSubstr("First bad value: model.embed_tokens.weight["));
  }
}

TEST_F(GuardedRunTest, AReplayFromTheFreshStartOfARunThatDiverges) {
  // A rate at which the first update makes weights whose products overflow.
  Trainer(config(settings("run", {"optimizer.lr=1e37", "optimizer.min_lr=1e37", "optimizer.warmup_offset=1",
                                  "checkpoint.every=0", "guard.on_nonfinite=stop"})))
      .train();
  const ReplayResult result = replay(dir_ / "run" / fmt::format("incident-{:08}", incidents("run").at(0)));
  EXPECT_TRUE(result.reproduced) << result.difference;
}

TEST_F(GuardedRunTest, AReplayTellsWhenTheFaultIsGone) {
  run(settings("run", {"checkpoint.every=0"}));  // no state holds the poison
  const ReplayResult result = replay(dir_ / "run" / fmt::format("incident-{:08}", incidents("run").at(0)));
  EXPECT_FALSE(result.reproduced);
  EXPECT_THAT(result.difference, HasSubstr("as usual"));
}

}  // namespace
}  // namespace temper::train

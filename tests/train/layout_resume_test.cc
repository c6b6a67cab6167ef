// A run that changes its layout of ranks on the way is the run of one rank: states and models in equal bytes.
#include "base/error.h"
#include "base/file.h"
#include "base/forwarding_files.h"
#include "comm/world.h"
#include "train/run_test_base.h"
#include "train/trainer.h"

namespace temper::train {
namespace {

namespace fs = std::filesystem;

struct Ranks {
  int64_t number, zero, ep = 1, pp = 1, tp = 1;
};

// The system's disk, which has no room for the first file that is made.
class FullOnce : public test::ForwardingFiles {
 public:
  std::unique_ptr<OutputFile> create(const Path& path) override {
    if (std::exchange(is_full_, false)) fail(ErrorCode::kIo, "cannot create {}: the disk is full", path.string());
    return ForwardingFiles::create(path);
  }

 private:
  bool is_full_ = true;
};

class LayoutResumeTest : public testing::RunTest {
 protected:
  LayoutResumeTest() {
    auto model = nlohmann::json::parse(read_file(at("mtp.json")));
    model["n_routed_experts"] = 8;
    write("experts.json", model.dump());
  }

  std::vector<std::string> settings(const std::string& dir, Ranks layout) const {
    return {set("output.dir", dir),
            set("model.config", "experts.json"),
            "train.precision=fp32",
            "train.mtp_weight=0.3",
            "train.bias_update_speed=0.01",
            "train.indexer=train",
            "train.gradient_accumulation=4",
            "train.steps=6",
            "run.exact=true",
            "layout.zero=" + std::to_string(layout.zero),
            "layout.ep=" + std::to_string(layout.ep),
            "layout.pp=" + std::to_string(layout.pp),
            "layout.tp=" + std::to_string(layout.tp),
            "checkpoint.every=2",
            "checkpoint.keep_last=9",
            "output.log_every=1"};
  }

  // Trains to the end, from the newest state in dir on.
  TrainSummary run(const std::string& dir, Ranks layout, const std::vector<std::string>& more = {},
                   Files& last_disk = system_files()) const {
    std::vector<std::string> all = settings(dir, layout);
    all.insert(all.end(), more.begin(), more.end());
    if (layout.number == 1) return Trainer(config(all)).train();
    TrainSummary summary;
    comm::run_ranks(layout.number, [&](comm::Comm& world) {
      Files& disk = world.rank() == world.size() - 1 ? last_disk : system_files();
      Trainer trainer(config(all), Start::kResume, disk, kAnyStep, nullptr, &world);
      const TrainSummary mine = trainer.train();
      if (world.rank() == 0) summary = mine;
    });
    return summary;
  }

  // What runs leave that were killed some time after they had saved the state of `step`.
  void cut_back(const std::string& dir, int64_t step) const {
    for (const auto& entry : fs::directory_iterator(dir_ / dir / "state"))
      if (std::stoll(entry.path().filename().string().substr(5)) > step) fs::remove_all(entry.path());
    fs::remove_all(dir_ / dir / "model");
  }

  // A run that is killed after every second step and goes on with the next layout of its way is that of one rank.
  void expect_equal_ways(const std::vector<std::vector<Ranks>>& ways, const std::vector<std::string>& more) const {
    const TrainSummary whole = run("whole", {1, 0}, more);
    for (size_t way = 0; way < ways.size(); ++way) {
      const std::string dir = "way" + std::to_string(way);
      for (size_t i = 0; i < ways[way].size(); ++i) {
        if (i > 0) cut_back(dir, 2 * static_cast<int64_t>(i));
        const TrainSummary summary = run(dir, ways[way][i], more);
        EXPECT_EQ(summary.chain, whole.chain) << dir << " layout " << i;
        EXPECT_EQ(summary.num_states, 3 - static_cast<int64_t>(i)) << dir << " layout " << i;
        EXPECT_TRUE(model_of(dir) == model_of("whole")) << dir << " layout " << i;
      }
    }
  }

  // The setting of a model with a layer for each of four stages or chunks.
  std::string four_layers() {
    auto model = nlohmann::json::parse(read_file(at("experts.json")));
    model["num_hidden_layers"] = 4;
    model["layer_types"].push_back("compressed_sparse_attention");
    model["mlp_layer_types"].push_back("moe");
    write("four_layers.json", model.dump());
    return set("model.config", "four_layers.json");
  }

  std::string model_of(const std::string& dir) const { return read_file(dir_ / dir / "model/model.safetensors"); }
  static constexpr int64_t kAnyStep = std::numeric_limits<int64_t>::max();
};

TEST_F(LayoutResumeTest, AStateOfAnyLayoutGoesOnOnAnyOther) {
  expect_equal_ways({{{2, 1}, {1, 0}, {4, 3}},
                     {{4, 3, 2}, {2, 0}, {2, 2}},
                     {{1, 0}, {2, 3}, {2, 0, 2}},
                     {{2, 1, 2}, {4, 1, 4}, {4, 0, 2}}},
                    {});
}

TEST_F(LayoutResumeTest, AStateOfAPipelineGoesOnOnAnyOther) {
  expect_equal_ways({{{2, 0, 1, 2}, {4, 3, 2, 2}, {1, 0}},
                     {{1, 0}, {4, 1, 1, 2}, {2, 3, 2}},
                     {{4, 0, 1, 4}, {3, 0, 1, 3}, {4, 3, 2, 2}}},
                    {});
}

// A state is the same wherever the experts stood, and a model, too.
TEST_F(LayoutResumeTest, AStateAfterExpertsWereDealtAnewGoesOnOnAnyOther) {
  expect_equal_ways({{{2, 1, 2}, {1, 0}, {4, 3, 2}}, {{4, 3, 4}, {4, 1, 2, 2}, {2, 0, 2}}}, {"layout.rebalance=1"});
  const std::string log = read_file(dir_ / "way0/metrics.jsonl");
  EXPECT_NE(log.find("\"expert_imbalance\":"), std::string::npos);
}

// The prediction block of the last stage reads the embedding, too: both have it, one writes it.
TEST_F(LayoutResumeTest, TheEmbeddingOfTwoStagesIsWrittenOnce) {
  const TrainSummary whole = run("run", {2, 1, 1, 2});
  cut_back("run", 4);
  const TrainSummary rest = run("run", {2, 1, 1, 2});
  EXPECT_EQ(rest.num_states, 1);
  EXPECT_EQ(rest.chain, whole.chain);
}

// Staged or in place, every rank writes a file of its own.
TEST_F(LayoutResumeTest, EveryRankWritesWhatItOwns) {
  run("one", {1, 0});
  run("many", {2, 1}, {"checkpoint.staging=false", "checkpoint.verify=true"});
  std::vector<int64_t> bytes;
  for (int rank = 0; rank < 2; ++rank)
    bytes.push_back(
        static_cast<int64_t>(fs::file_size(dir_ / "many/state/step-00000006" / checkpoint::tensor_file_name(rank))));
  const auto whole =
      static_cast<int64_t>(fs::file_size(dir_ / "one/state/step-00000006" / checkpoint::tensor_file_name(0)));
  EXPECT_GT(bytes[0], whole / 4);
  EXPECT_GT(bytes[1], whole / 4);
  EXPECT_LT(bytes[0] + bytes[1], whole * 6 / 5) << "no element twice; names of pieces are longer";
}

// From a model directory, and back to one in the release's formats.
TEST_F(LayoutResumeTest, AnyLayoutReadsAndWritesModelsAsOneRankDoes) {
  run("start", {1, 0});
  const std::vector<std::string> more = {"model.config=\"\"", set("model.path", "start/model"),
                                         "output.dtype=\"official\"", "train.mtp_weight=0"};
  const TrainSummary one = run("one", {1, 0}, more);
  const std::vector<Ranks> layouts = {{2, 0}, {2, 1}, {2, 2}, {2, 3}, {2, 1, 2}, {4, 3, 2, 2}};
  for (size_t i = 0; i < layouts.size(); ++i) {
    const std::string dir = "many" + std::to_string(i);
    EXPECT_EQ(run(dir, layouts[i], more).chain, one.chain) << dir;
    EXPECT_TRUE(model_of(dir) == model_of("one")) << dir;
    EXPECT_EQ(read_file(dir_ / dir / "model/config.json"), read_file(dir_ / "one/model/config.json"));
  }
}

// The first stage has layers behind those of the second one.
TEST_F(LayoutResumeTest, AnInterleavedPipelineReadsAndWritesModelsAsOneRankDoes) {
  const std::vector<std::string> more = {four_layers()};
  const std::vector<std::string> interleaved = {more[0], "layout.schedule=interleaved", "layout.chunks=2"};
  const TrainSummary one = run("one", {1, 0}, more), many = run("many", {4, 3, 1, 2}, interleaved);
  EXPECT_EQ(many.chain, one.chain);
  EXPECT_TRUE(model_of("many") == model_of("one"));
  cut_back("many", 4);
  EXPECT_EQ(run("many", {2, 1}, more).chain, one.chain);
}

// Schedules differ in who has which layers, and in the order of a step.
TEST_F(LayoutResumeTest, AStateOfOneScheduleGoesOnOnAnyOther) {
  struct Part {
    Ranks ranks;
    std::string schedule;
  };
  const std::string model = four_layers();
  const TrainSummary whole = run("whole", {1, 0}, {model});
  const std::vector<std::vector<Part>> ways = {
      {{{2, 0, 1, 2}, "1f1b"}, {{4, 2, 1, 2}, "zero-bubble"}, {{4, 3, 2, 2}, "interleaved"}},
      {{{2, 0, 1, 2}, "interleaved"}, {{4, 0, 1, 4}, "zero-bubble"}, {{4, 1, 2, 2}, "1f1b"}}};
  for (size_t way = 0; way < ways.size(); ++way) {
    const std::string dir = "way" + std::to_string(way);
    for (size_t i = 0; i < ways[way].size(); ++i) {
      const auto& [ranks, schedule] = ways[way][i];
      if (i > 0) cut_back(dir, 2 * static_cast<int64_t>(i));
      const std::string chunks = schedule == "interleaved" ? "layout.chunks=2" : "layout.chunks=1";
      const TrainSummary summary = run(dir, ranks, {model, "layout.schedule=" + schedule, chunks});
      EXPECT_EQ(summary.chain, whole.chain) << dir << " " << schedule;
      EXPECT_TRUE(model_of(dir) == model_of("whole")) << dir << " " << schedule;
    }
  }
}

// States and models of slices: what one layout has saved, another reads and exports as the first one does.
TEST_F(LayoutResumeTest, SlicesAreSavedAndReadAsWholeTensors) {
  const std::vector<std::string> more = {"run.exact=false"};
  const std::vector<Ranks> layouts = {{2, 1, 1, 1, 2}, {4, 3, 2, 1, 2}, {4, 0, 1, 2, 2}, {1, 0}};
  for (size_t i = 0; i < layouts.size(); ++i) {
    const std::string dir = "run" + std::to_string(i);
    const TrainSummary first = run(dir, layouts[i], more);
    const std::string model = model_of(dir);
    for (const Ranks& other : layouts) {
      cut_back(dir, 6);  // leaves the last state
      run(dir, other, more);
      EXPECT_TRUE(model_of(dir) == model) << "written by layout " << i << ", read on " << other.number << " ranks";
    }
    // Moments, too: the last steps again, on another layout, from the state before.
    cut_back(dir, 4);
    const TrainSummary again = run(dir, layouts[(i + 1) % layouts.size()], more);
    EXPECT_EQ(again.num_states, 1) << i;
    EXPECT_NEAR(again.last_loss, first.last_loss, 1e-4 * first.last_loss) << i;
  }
}

TEST_F(LayoutResumeTest, AStateThatOneRankCannotWriteIsNotPublishedAndAllGoOn) {
  FullOnce full;
  const TrainSummary whole = run("whole", {1, 0});
  ::testing::internal::CaptureStdout();
  const TrainSummary summary = run("run", {2, 1}, {}, full);
  const std::string output = ::testing::internal::GetCapturedStdout();
  EXPECT_EQ(summary.chain, whole.chain);
  EXPECT_THAT(output, ::testing::HasSubstr("warning: the state of step 2 was not saved: rank 1: cannot create "));
  EXPECT_THAT(output, ::testing::HasSubstr("there is none yet"));
  EXPECT_FALSE(fs::exists(dir_ / "run/state/step-00000002"));
  EXPECT_TRUE(fs::exists(dir_ / "run/state/step-00000006"));
}

}  // namespace
}  // namespace temper::train

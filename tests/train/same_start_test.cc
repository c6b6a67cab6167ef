#include "train/same_start.h"

#include "base/error.h"
#include "comm/world.h"
#include "train/run_test_base.h"
#include "train/trainer.h"

namespace temper::train {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class SameStartTest : public testing::RunTest {
 protected:
  // What each of three ranks finds, the last of which is started with more settings.
  std::vector<std::string> refusals(const std::vector<std::string>& of_the_last,
                                    const std::vector<std::string>& of_all = {}) const {
    std::vector<std::string> said(3);
    comm::run_ranks(3, [&](comm::Comm& world) {
      std::vector<std::string> settings = {"train.gradient_accumulation=3", set("output.dir", "run")};
      settings.insert(settings.end(), of_all.begin(), of_all.end());
      if (world.rank() == 2) settings.insert(settings.end(), of_the_last.begin(), of_the_last.end());
      try {
        Trainer(config(settings), Start::kResume, system_files(), 0, nullptr, &world);
      } catch (const Error& error) {
        said[static_cast<size_t>(world.rank())] = error.what();
      }
    });
    EXPECT_EQ(said[1], said[0]) << "what all find is said once";
    EXPECT_EQ(said[2], said[0]);
    return said;
  }
};

TEST_F(SameStartTest, WhatIsAlikeIsAccepted) { EXPECT_EQ(refusals({})[0], ""); }

TEST_F(SameStartTest, ThatThreeRanksAreNotExactIsSaidOnce) {
  for (const bool exact : {true, false}) {
    ::testing::internal::CaptureStdout();
    EXPECT_EQ(refusals({}, {exact ? "run.exact=true" : "run.exact=false"})[0], "");
    const std::string output = ::testing::internal::GetCapturedStdout();
    const size_t at = output.find("warning: run.exact gives the bits of one rank only with");
    EXPECT_EQ(at != std::string::npos, exact) << output;
    if (exact) EXPECT_EQ(output.find("warning: run.exact", at + 1), std::string::npos) << output;
  }
}

TEST_F(SameStartTest, OtherDataOfOneRankAreNamed) {
  write("other.jsonl", "{\"text\": \"a few words of another file\"}\n{\"text\": \"and some more of them\"}\n");
  EXPECT_THAT(refusals({set("data.train", "other.jsonl")})[0], HasSubstr("data; rank 2: hash of data.train is \""));
  EXPECT_THAT(refusals({set("data.eval", "other.jsonl")})[0], HasSubstr("data; rank 2: hash of data.eval is "));
}

TEST_F(SameStartTest, AnotherModelOfOneRankIsNamedByItsKeys) {
  auto model = nlohmann::json::parse(std::ifstream(at("config.json")));
  model["routed_scaling_factor"] = 1.75;
  write("other.json", model.dump());
  EXPECT_THAT(refusals({set("model.config", "other.json")})[0],
              HasSubstr("data; rank 2: config.json: routed_scaling_factor is 1.75, on rank 0 "));
}

TEST_F(SameStartTest, ADirectoryThatOneRankDoesNotSeeIsNamed) {
  EXPECT_THAT(refusals({set("output.dir", "elsewhere")})[0],
              AllOf(HasSubstr("rank 2: cannot write into "), HasSubstr("elsewhere: No such file or directory"),
                    HasSubstr("a disk that all machines share")));
}

TEST_F(SameStartTest, EveryKeyAndTheProgramAreCompared) {
  const nlohmann::ordered_json facts = started_with(config({"optimizer.lr=0.25"}));
  EXPECT_EQ(facts["optimizer.lr"], 0.25);
  EXPECT_THAT(facts["the program"].get<std::string>(), HasSubstr(" bytes, hash "));
  std::string said;
  comm::run_ranks(2, [&](comm::Comm& world) {
    nlohmann::ordered_json mine = facts;
    if (world.rank() == 1) mine["optimizer.lr"] = 0.5, mine["layout.zero"] = 3;
    try {
      check_alike(world, mine);
    } catch (const Error& error) {
      if (world.rank() == 0) said = error.what();
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    }
  });
  EXPECT_THAT(said, HasSubstr("rank 1: optimizer.lr is 0.5, on rank 0 0.25; layout.zero is 3, on rank 0 1"));
}

}  // namespace
}  // namespace temper::train

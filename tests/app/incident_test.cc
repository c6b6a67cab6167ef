// A run that diverges, as its user sees it: what it says, how it ends, and what a replay says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "app/run_binary.h"
#include "base/scratch_dir.h"
#include "train/run_folder.h"

namespace temper::test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

TEST(IncidentCommand, ARunThatDivergesStopsWithABundleThatReplays) {
  ScratchDir folder;
  train::testing::make_run_folder(folder.path());
  const std::string run_file = folder.write("run.toml", train::testing::run_file_text(folder.path()));
  // At this rate the first update makes weights whose products overflow.
  const RunResult run =
      run_temper({"train", run_file, "--set", "optimizer.lr=1e37", "--set", "optimizer.warmup_offset=1", "--set",
                  "guard.on_nonfinite=stop", "--set", "checkpoint.every=1"});
  EXPECT_EQ(run.exit_code, 4) << run.output;
  EXPECT_THAT(run.output, HasSubstr("step 2: the loss is"));
  EXPECT_THAT(run.output, HasSubstr("it is reproducible. First bad value: "));
  EXPECT_THAT(run.output, HasSubstr("stopped by the guard at step 2 after step 1, state saved"));
  const std::string bundle = (folder.path() / "run" / "incident-00000002").string();
  EXPECT_THAT(run.output, HasSubstr("temper train --replay " + bundle));

  const RunResult replay = run_temper({"train", "--replay", bundle});
  EXPECT_EQ(replay.exit_code, 0) << replay.output;
  EXPECT_THAT(replay.output, HasSubstr("First bad value: "));
  EXPECT_THAT(replay.output, HasSubstr("\nreproduced\n"));

  const RunResult none = run_temper({"train", "--replay", (folder.path() / "run").string()});
  EXPECT_EQ(none.exit_code, 2) << none.output;
}

}  // namespace
}  // namespace temper::test

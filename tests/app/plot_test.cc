// temper plot and temper report as a user calls them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "app/run_binary.h"
#include "base/file.h"
#include "base/scratch_dir.h"

namespace temper::test {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

constexpr const char* kLines = "{\"step\":1,\"loss\":3}\n{\"step\":2,\"loss\":2}\n{\"st";

TEST(PlotCommand, DrawsAndTells) {
  const ScratchDir directory;
  directory.write("metrics.jsonl", kLines);
  const std::string run = directory.path().string(), out = run + "/out.svg";
  const RunResult result = run_temper({"plot", run, "--fields", "loss", "--x", "step", "--out", out});
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("note: "));
  EXPECT_THAT(result.output, HasSubstr(out));
  EXPECT_THAT(read_file(out), StartsWith("<?xml"));
}

TEST(PlotCommand, WhatIsTheUsersToMendIsToldAsSuch) {
  const ScratchDir directory;
  directory.write("metrics.jsonl", kLines);
  const std::string run = directory.path().string();
  EXPECT_EQ(run_temper({"plot", run + "/nothing"}).exit_code, 2);
  EXPECT_EQ(run_temper({"plot", run, "--out", run + "/out.svg", "--x", "time"}).exit_code, 2);
  const RunResult result = run_temper({"plot", run, "--out", run + "/out.svg", "--fields", "lss"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.output, HasSubstr("did you mean loss?"));
}

TEST(ReportCommand, WritesOnePage) {
  const ScratchDir directory;
  directory.write("metrics.jsonl", kLines);
  const std::string run = directory.path().string(), out = run + "/out.html";
  const RunResult result = run_temper({"report", run, "--out", out});
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(read_file(out), StartsWith("<!doctype html>"));
  EXPECT_EQ(run_temper({"report", run + "/nothing", "--out", out}).exit_code, 2);
}

}  // namespace
}  // namespace temper::test

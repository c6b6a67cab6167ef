// The page about a run: what it shows, that nothing in a run directory is interpreted, that damage hides nothing else.
#include "report/report.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>

#include <fstream>

#include "base/error.h"
#include "base/scratch_dir.h"
#include "checkpoint/state_log.h"
#include "report/html.h"
#include "report/key_figures.h"

namespace temper::report {
namespace {

namespace fs = std::filesystem;

class Report : public testing::Test {
 protected:
  void write(const std::string& name, const std::string& contents) const { directory_.write(name, contents); }
  RunFiles files() const { return read_run_files(directory_.path()); }

  const test::ScratchDir directory_;
};

constexpr const char* kTwoSteps =
    "{\"step\":0,\"eval_loss\":4,\"wall_time\":1795343390}\n"
    "{\"step\":1,\"loss\":4,\"num_tokens\":1000,\"tokens_per_second\":500,\"forward_ms\":30,\"backward_ms\":70}\n"
    "{\"step\":2,\"loss\":2.5,\"num_tokens\":2000,\"tokens_per_second\":500,\"forward_ms\":30,\"backward_ms\":70}\n"
    "{\"step\":2,\"eval_loss\":3,\"wall_time\":1795343450}\n";

// Not EXPECT_THAT(page, HasSubstr(...)): a page is long.
bool contains(const std::string& page, const std::string& part) { return page.find(part) != page.npos; }

TEST_F(Report, ShowsTheWholeRun) {
  write("metrics.jsonl", kTwoSteps);
  write("run.json", R"({"total_steps": 2, "configuration": {"train.steps": 2, "optimizer.lr": 0.01}})");
  write("incident-00000002/incident.json", R"({"step": 2, "first_bad": {"op": "matmul", "layer": 3}, "text": "NaN"})");
  write("samples.jsonl", "{\"prompt\": \"two?\", \"given\": \"t uw\", \"expected\": \"t uh\", \"exact\": false}\n");
  checkpoint::StateLog(directory_ / "state", {}).write({.step = 2, .tensors = {}, .score = 3.0});
  const std::string page = report_page(files());
  for (const char* part : {"step 2 of 2", "4 \u2192 2.5", "lowest 2.5000, step 2", "4 \u2192 3", "2,000",
                           "forward 30.0 % (0.1 s)", "backward 70.0 %", "incident-00000002", "first_bad.op", "matmul",
                           "two?", "t uw", "t uh", "Samples: 0 of 1 exactly", "optimizer.lr", "0.01", "3.0000",
                           "aria-label=\"loss (nats per trained token)\"", "id=\"gnuplot_plot_2a\""}) {
    EXPECT_TRUE(contains(page, part)) << part;
  }
  for (const char* fetched : {"<script", "src=", "<link", "url(", "@import", "href=\"http"})
    EXPECT_FALSE(contains(page, fetched)) << fetched;
}

TEST_F(Report, AFewNumbersAreEnough) {
  write("metrics.jsonl", "{\"step\":1,\"loss\":2}\n");
  const std::string page = report_page(files());
  EXPECT_TRUE(contains(page, "2 \u2192 2"));
  EXPECT_FALSE(contains(page, "Incidents"));
}

TEST_F(Report, NothingInARunIsInterpreted) {
  const std::string bad = "<script>alert(1)</script>\\\" onload=\\\"x";
  write("metrics.jsonl", "{\"step\":1,\"loss\":2,\"tokens_by_source/" + bad +
                             "\":1,\"tokens_by_source/b\":2,\"grad_norm/" + bad + "\":1,\"grad_norm/b\":1}\n");
  write("run.json", "{\"" + bad + "\": \"" + bad + "\", \"peak\": {\"name\": \"" + bad + "\"}}");
  write("incident-" + std::string("<script>") + "/incident.json", "{\"" + bad + "\": [\"" + bad + "\"]}");
  write("samples.jsonl", "{\"prompt\": \"" + bad + "\", \"given\": \"" + bad + "\", \"expected\": \"" + bad + "\"}\n");
  const std::string page = report_page(files());
  EXPECT_FALSE(contains(page, "<script"));
  EXPECT_TRUE(contains(page, "&lt;script&gt;alert(1)&lt;/script&gt;&quot; onload=&quot;x"));
}

TEST_F(Report, DamageInOnePartIsToldAndHidesNoOther) {
  write("metrics.jsonl", std::string(kTwoSteps) + "{\"st");
  write("run.json", "{");
  write("incident-00000001/incident.json", "[");
  write("incident-00000002/incident.json", "{\"text\": \"seen\"}");
  write("state/step-00000001/manifest.json", "{}");
  const RunFiles run = files();
  EXPECT_EQ(run.notes.size(), 4);
  const std::string page = report_page(run);
  for (const char* part : {"seen", "half written", "run.json:"}) EXPECT_TRUE(contains(page, part)) << part;
}

TEST_F(Report, LinksOutOfTheRunAreNotFollowed) {
  write("metrics.jsonl", kTwoSteps);
  write("elsewhere/incident.json", "{\"text\": \"secret\"}");
  fs::create_directory_symlink(directory_ / "elsewhere", directory_ / "incident-00000001");
  fs::create_directory(directory_ / "incident-00000002");
  fs::create_symlink(directory_ / "elsewhere/incident.json", directory_ / "incident-00000002/incident.json");
  fs::create_symlink(directory_ / "elsewhere/incident.json", directory_ / "run.json");
  EXPECT_FALSE(contains(report_page(files()), "secret"));
}

TEST_F(Report, TellsRunningFinishedAndInterrupted) {
  write("metrics.jsonl", kTwoSteps);
  EXPECT_EQ(files().status, RunStatus::kInterrupted);
  const int descriptor = open(directory_.path().c_str(), O_RDONLY | O_DIRECTORY);
  ASSERT_EQ(flock(descriptor, LOCK_EX), 0);
  EXPECT_EQ(files().status, RunStatus::kRunning);
  close(descriptor);
  write("model/config.json", "{}");
  EXPECT_EQ(files().status, RunStatus::kFinished);
}

TEST_F(Report, ADirectoryThatIsNoRunIsRefused) {
  EXPECT_THROW(files(), Error);
  EXPECT_THROW(read_run_files(directory_ / "nothing"), Error);
}

TEST(Html, EscapesWhatMeansSomethingToABrowser) {
  EXPECT_EQ(escape("a<b>&\"'\x01\xff\n\u2192"), "a&lt;b&gt;&amp;&quot;&#39;??\n\u2192");
}

TEST(KeyFigures, TimeSharesAddUpToTheWhole) {
  const auto shares = time_shares(parse_metrics(kTwoSteps, "m"));
  ASSERT_EQ(shares.size(), 2);
  EXPECT_DOUBLE_EQ(shares[0].share, 0.3);
  EXPECT_DOUBLE_EQ(shares[1].seconds, 0.14);
  EXPECT_THAT(time_shares(parse_metrics("{\"step\":1}\n", "m")), testing::IsEmpty());
}

TEST(KeyFigures, DurationsAreReadable) {
  EXPECT_EQ(duration_text(4.54), "4.5 s");
  EXPECT_EQ(duration_text(123), "2:03");
  EXPECT_EQ(duration_text(3723), "1:02:03");
}

}  // namespace
}  // namespace temper::report

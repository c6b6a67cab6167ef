// Pictures through gnuplot: every curve is there, nothing in a name is interpreted, errors say what to do.
#include "report/plot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "base/error.h"
#include "base/file.h"
#include "base/scratch_dir.h"
#include "report/child.h"

namespace temper::report {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++n;
  return n;
}

class Plot : public testing::Test {
 protected:
  fs::path make_run(const std::string& name, const std::string& lines) {
    fs::create_directories(directory_ / name);
    std::ofstream(directory_ / name / "metrics.jsonl") << lines;
    return directory_ / name;
  }
  fs::path two_steps(const std::string& name) {
    return make_run(name,
                    "{\"step\":1,\"loss\":3,\"grad_norm\":1}\n{\"step\":2,\"loss\":2.5,\"grad_norm\":2}\n"
                    "{\"step\":2,\"eval_loss\":2.75}\n");
  }
  static std::string message_of(const PlotRequest& request) {
    try {
      plot(request);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }

  const test::ScratchDir directory_;
};

TEST_F(Plot, AnSvgHoldsEveryCurveOfEveryRun) {
  const PlotRequest request{{two_steps("a"), two_steps("b")}, directory_ / "out.svg", {}, XAxis::kStep};
  EXPECT_TRUE(plot(request).empty());
  const std::string svg = read_file(request.out);
  EXPECT_THAT(svg, StartsWith("<?xml"));
  EXPECT_THAT(svg, HasSubstr("</svg>"));
  EXPECT_EQ(count(svg, "<title>gnuplot_plot_"), 6) << "loss and held-out loss of two runs; gradient norm of two";
  EXPECT_EQ(count(svg, "<text>a</text>"), 1) << "the legend stands in the first panel only";
}

TEST_F(Plot, APngIsWritten) {
  const PlotRequest request{{two_steps("a")}, directory_ / "out.png", {"loss"}, XAxis::kStep};
  plot(request);
  EXPECT_THAT(read_file(request.out), StartsWith("\x89PNG"));
}

TEST_F(Plot, NothingInANameIsInterpreted) {
  const std::string name = "x'; system(\"touch broken\") # `id` ${x} <b>&\n_{y}\xff";
  const PlotRequest request{{two_steps(name), two_steps("'")}, directory_ / "| touch broken.svg", {}, XAxis::kStep};
  plot(request);
  const std::string svg = read_file(directory_ / "| touch broken.svg");
  EXPECT_THAT(svg, HasSubstr("x\u2019; system(\"touch broken\") # \u2018id\u2018 ${x} &lt;b"));
  EXPECT_THAT(svg, HasSubstr("&amp;?_{y}?"));
  EXPECT_THAT(svg, Not(HasSubstr("<b>")));
  EXPECT_FALSE(fs::exists("broken"));
}

TEST_F(Plot, AConstantAndASinglePointAreDrawn) {
  const fs::path run = make_run("a", "{\"step\":1,\"loss\":0,\"mfu\":0.5}\n");
  const PlotRequest request{{run}, directory_ / "out.svg", {"loss", "mfu"}, XAxis::kStep};
  plot(request);
  EXPECT_EQ(count(read_file(request.out), "<title>gnuplot_plot_"), 2);
}

TEST_F(Plot, ErrorsSayWhatToDo) {
  const fs::path run = two_steps("a");
  EXPECT_THAT(message_of({{run}, directory_ / "out.gif", {}, XAxis::kStep}), HasSubstr(".svg or .png"));
  EXPECT_THAT(
      message_of({{run}, directory_ / "out.svg", {"grad_nrom"}, XAxis::kStep}),
      HasSubstr("no run has the field grad_nrom (did you mean grad_norm?); there are: eval_loss, grad_norm, loss"));
  EXPECT_FALSE(fs::exists(directory_ / "out.svg"));
}

TEST_F(Plot, AHalfWrittenLastLineIsTold) {
  const fs::path run = make_run("a", "{\"step\":1,\"loss\":3}\n{\"st");
  const auto notes = plot({{run}, directory_ / "out.svg", {}, XAxis::kStep});
  ASSERT_EQ(notes.size(), 1);
  EXPECT_THAT(notes[0], HasSubstr("only half written"));
}

TEST(Child, AProgramThatIsNotThereNamesItsPackage) {
  try {
    run_child({"no-such-program-here"}, "", "drawing", "some-package");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kNotFound);
    EXPECT_STREQ(error.what(),
                 "drawing needs no-such-program-here, which is not installed: apt-get install some-package");
  }
}

TEST(Child, IsAFilterAndItsFailureIsTold) {
  const std::string large(1 << 20, 'x');
  EXPECT_EQ(run_child({"cat"}, large, "this", "coreutils"), large);
  try {
    run_child({"gnuplot", "-d", "-"}, "plot 'no such file'\nexit status 3\n", "drawing", "gnuplot-nox");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("gnuplot failed (exit code"));
    EXPECT_THAT(error.what(), HasSubstr("no such file"));
  }
}

}  // namespace
}  // namespace temper::report

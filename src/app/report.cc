// temper report: one HTML page about a run.
#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "app/commands.h"
#include "base/file.h"
#include "report/report.h"

namespace temper::app {
namespace {

struct ReportArguments {
  std::filesystem::path run, out = "report.html";
};

void run(const ReportArguments& arguments) {
  const report::RunFiles files = report::read_run_files(arguments.run);
  for (const std::string& note : files.notes) fmt::print(stderr, "note: {}\n", note);
  write_file_atomically(arguments.out, report::report_page(files));
  fmt::print("{}\n", arguments.out.string());
}

}  // namespace

void add_report(CLI::App& app) {
  auto arguments = std::make_shared<ReportArguments>();
  CLI::App* command = app.add_subcommand("report", "one self-contained HTML page about a run");
  command->add_option("RUN", arguments->run, "output directory of the run")->required();
  command->add_option("--out", arguments->out, "the page (default report.html)");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace temper::app

// temper plot: curves of runs in a picture.
#include <fmt/format.h>

#include <memory>

#include "app/choice.h"
#include "app/commands.h"
#include "report/plot.h"

namespace temper::app {

void add_plot(CLI::App& app) {
  auto request = std::make_shared<report::PlotRequest>();
  request->out = "curves.svg";
  CLI::App* command = app.add_subcommand("plot", "draw the curves of one run, or compare runs");
  command->add_option("RUN", request->runs, "output directories of runs, or metrics.jsonl or TensorBoard event files")
      ->required();
  command->add_option("--out", request->out, "the picture, .svg or .png (default curves.svg)");
  command
      ->add_option("--fields", request->fields,
                   "fields of metrics.jsonl, a panel each (default loss,grad_norm,learning_rate,tokens_per_second)")
      ->delimiter(',')
      ->allow_extra_args(false);
  add_choice<report::XAxis>(*command, "--x", request->axis, "the x axis (default step)",
                            {{"step", report::XAxis::kStep},
                             {"num_tokens", report::XAxis::kTokens},
                             {"wall_time", report::XAxis::kWallTime}});
  command->callback([request] {
    for (const std::string& note : report::plot(*request)) fmt::print(stderr, "note: {}\n", note);
    fmt::print("{}\n", request->out.string());
  });
}

}  // namespace temper::app

// temper verify: what this checkpoint computes, in a file that others can compare with.
#include <fmt/format.h>

#include <memory>

#include "app/commands.h"
#include "app/precision.h"
#include "train/verify.h"

namespace temper::app {
namespace {

void run(const train::VerifyOptions& options) {
  const train::VerifyReport report = train::verify(options);
  fmt::print("{:>6} {:>8} {:>8} {:>12}\n", "line", "tokens", "targets", "loss");
  int64_t num_tokens = 0, num_targets = 0;
  for (const auto& line : report.lines) {
    fmt::print("{:6d} {:8d} {:8d} {:12.6f}\n", line.number, line.num_tokens, line.num_targets, line.loss);
    num_tokens += line.num_tokens;
    num_targets += line.num_targets;
  }
  fmt::print("{:>6} {:8d} {:8d} {:12.6f}\n", "all", num_tokens, num_targets, report.loss);
  fmt::print("wrote {}: logits.<i>, loss.<i>{}\n", options.dump.string(),
             options.gradients ? " and the gradient of every trainable parameter" : "");
  if (!report.without_gradient.empty()) {
    fmt::print("left out, because the loss gives them no gradient:\n");
    for (const auto& name : report.without_gradient) fmt::print("  {}\n", name);
  }
}

}  // namespace

void add_verify(CLI::App& app) {
  auto options = std::make_shared<train::VerifyOptions>();
  CLI::App* command = app.add_subcommand("verify", "write the logits, losses and gradients of a checkpoint");
  command->add_option("DIR", options->model_dir, "model directory (Hugging Face)")->required();
  command
      ->add_option("--input", options->input,
                   "JSONL, one {\"input_ids\": [...], \"labels\": [...]} a line; -100 = no loss")
      ->required();
  command->add_option("--dump", options->dump, "safetensors file to write")->required();
  command->add_flag("--gradients", options->gradients,
                    "also the gradient of (sum of token losses) / (number of labelled tokens), by parameter");
  add_precision(*command, options->precision, "fp64 runs on the scalar reference");
  command->callback([options] { run(*options); });
}

}  // namespace temper::app

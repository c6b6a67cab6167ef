// temper verify: is this checkpoint what it says, and do we compute what its makers compute. With --dump: what it
// computes, in a file that others can compare with.
#include <fmt/format.h>

#include <cstdio>
#include <memory>

#include "app/commands.h"
#include "app/numbers.h"
#include "app/precision.h"
#include "base/error.h"
#include "base/file.h"
#include "train/dump.h"
#include "verify/verify.h"

namespace temper::app {
namespace {

struct Arguments {
  verify::Options verify;
  train::DumpOptions dump;
  layers::Precision precision = layers::Precision::kFp32;
  std::filesystem::path json;
  std::string mode;  // empty: all, or with --against nothing else
};

void write_dump(const train::DumpOptions& options) {
  const train::DumpReport report = train::dump(options);
  fmt::print("{:>6} {:>8} {:>8} {:>12}\n", "line", "tokens", "targets", "loss");
  int64_t num_tokens = 0, num_targets = 0;
  for (const auto& line : report.lines) {
    fmt::print("{:6d} {:8d} {:8d} {:12.6f}\n", line.number, line.num_tokens, line.num_targets, line.loss);
    num_tokens += line.num_tokens;
    num_targets += line.num_targets;
  }
  fmt::print("{:>6} {:8d} {:8d} {:12.6f}\n", "all", num_tokens, num_targets, report.loss);
  fmt::print("wrote {}: logits.<i>, loss.<i>{}\n", options.file.string(),
             options.gradients ? " and the gradient of every trainable parameter" : "");
  if (!report.without_gradient.empty()) {
    fmt::print("left out, because the loss gives them no gradient:\n");
    for (const auto& name : report.without_gradient) fmt::print("  {}\n", name);
  }
}

void check(Arguments arguments) {
  if (arguments.precision == layers::Precision::kFp64)
    fail(ErrorCode::kInvalidArgument, "--precision fp64 is what fp32 and bf16 are checked against; it is for --dump");
  arguments.verify.precision = arguments.precision;
  const bool only_against = arguments.mode.empty() && !arguments.verify.against.empty();
  arguments.verify.structure = !only_against && arguments.mode != "self";
  arguments.verify.self = !only_against && arguments.mode != "structure";
  const verify::Report report = verify::run(arguments.verify, [](const std::string& text) {
    fmt::print("{}", text);
    std::fflush(stdout);
  });
  if (!arguments.json.empty()) write_file_atomically(arguments.json, report.json.dump(2) + "\n");
  fmt::print("\n{}", report.findings.to_string(report.num_main_layers));
  if (const int64_t failed = report.findings.num_failed(); failed > 0)
    fail(ErrorCode::kCorrupt, "{}: {} gates failed", arguments.verify.dir.string(), failed);
  fmt::print("{}: every gate passed\n", arguments.verify.dir.string());
}

void run(const Arguments& given) {
  Arguments arguments = given;
  if (arguments.dump.file.empty()) return check(arguments);
  arguments.dump.model_dir = arguments.verify.dir;
  arguments.dump.precision = arguments.precision;
  write_dump(arguments.dump);
}

}  // namespace

void add_verify(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("verify", "check a checkpoint; or write down what it computes (--dump)");
  command->add_option("DIR", arguments->verify.dir, "model directory (Hugging Face)")->required();
  command->add_option("--mode", arguments->mode, "structure, self, or all (the default; with --against: nothing else)")
      ->check(CLI::IsMember({"structure", "self", "all"}));
  command
      ->add_option("--against", arguments->verify.against,
                   "another model directory, or a safetensors file with input_ids.<i> and logits.<i>")
      ->check(CLI::ExistingPath);
  command
      ->add_option("--tokens", arguments->verify.tokens.file,
                   "JSONL, {\"input_ids\": [...]} a line; else random tokens")
      ->excludes(command
                     ->add_option("--num-tokens", arguments->verify.tokens.num_tokens,
                                  "random tokens (default: "
                                  "one more than the window and the slowest compressor need)")
                     ->check(above_zero()));
  command->add_option("--seed", arguments->verify.tokens.seed, "of the random tokens (default 1)");
  command->add_option("--memory", arguments->verify.memory_bytes, "most memory to take, e.g. 2GB; files aside")
      ->transform(CLI::AsSizeValue(false));
  command
      ->add_option(
          "--max-error", arguments->verify.max_error,
          "gate: relative error of a token's streams after a layer on equal input (default 1e-4; 5e-2 in bf16 and "
          "against a directory)")
      ->check(above_zero());
  command->add_option("--max-kl", arguments->verify.logits.max_kl, "gate: mean KL divergence of logits (default 0.01)")
      ->check(zero_or_above());
  command
      ->add_option("--min-cosine", arguments->verify.logits.min_cosine, "gate: mean cosine of logits (default 0.999)")
      ->check(CLI::Range(-1.0, 1.0));
  command->add_option("--json", arguments->json, "write the report for machines to this file");
  add_precision(*command, arguments->precision);

  CLI::Option* input = command->add_option("--input", arguments->dump.input,
                                           "for --dump: JSONL, one {\"input_ids\": [...], \"labels\": [...]} a line; "
                                           "-100 = no loss");
  CLI::Option* file = command->add_option("--dump", arguments->dump.file,
                                          "write logits and losses of --input to this safetensors file, check nothing");
  input->needs(file);
  file->needs(input);
  command
      ->add_flag("--gradients", arguments->dump.gradients,
                 "with --dump: also the gradient of (sum of token losses) / (number of labelled tokens), by parameter")
      ->needs(file);
  command->callback([arguments] { run(*arguments); });
}

}  // namespace temper::app

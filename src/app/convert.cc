// temper convert: a model directory under other names and in other dtypes.
#include <fmt/format.h>
#include <unistd.h>

#include <memory>

#include "app/choice.h"
#include "app/commands.h"
#include "app/numbers.h"
#include "base/thread.h"
#include "checkpoint/rewrite.h"

namespace temper::app {
namespace {

using checkpoint::NameStyle;
using checkpoint::RewriteDType;

struct Options {
  std::filesystem::path source, destination;
  checkpoint::RewriteOptions rewrite;
  int num_threads = 0;
};

double gigabytes(int64_t num_bytes) { return static_cast<double>(num_bytes) * 1e-9; }

// One line that is written over on a terminal, a line every ten seconds elsewhere.
class ProgressLine {
 public:
  void show(const checkpoint::RewriteProgress& progress) {
    const bool is_last = progress.tensors_done == progress.num_tensors;
    if (!is_last && progress.seconds - last_ < (is_terminal_ ? 0.2 : 10)) return;
    if (is_last && is_complete_) return;
    is_complete_ = is_last;
    last_ = progress.seconds;
    const double rate =
        static_cast<double>(progress.bytes_done - progress.bytes_resumed) / std::max(progress.seconds, 1e-3);
    const double left =
        rate > 0 ? static_cast<double>(std::max<int64_t>(progress.num_bytes - progress.bytes_done, 0)) / rate : 0;
    fmt::print(stderr, "{}{} of {} tensors, {:.2f} of {:.2f} GB, {:.0f} MB/s, {:.0f} s left{}",
               is_terminal_ ? "\r" : "", progress.tensors_done, progress.num_tensors, gigabytes(progress.bytes_done),
               gigabytes(progress.num_bytes), rate * 1e-6, left, is_terminal_ && !is_last ? "\033[K" : "\n");
    std::fflush(stderr);
  }

 private:
  const bool is_terminal_ = ::isatty(STDERR_FILENO) != 0;
  bool is_complete_ = false;
  double last_ = 0;
};

void run(const Options& options) {
  if (options.num_threads > 0) set_num_threads(options.num_threads);
  ProgressLine line;
  const auto report = checkpoint::rewrite(options.source, options.destination, options.rewrite,
                                          [&](const auto& progress) { line.show(progress); });
  for (const auto& name : report.missing) fmt::print("missing, as allowed: {}\n", name);
  if (report.num_dropped > 0) fmt::print("dropped {} copies of embedding and head beside mtp.0\n", report.num_dropped);
  if (report.num_foreign > 0)
    fmt::print("copied {} tensors under mtp. as they are: they are not V4's prediction block\n", report.num_foreign);
  if (report.num_resumed_files > 0)
    fmt::print("{} files were finished by an earlier run and equal their checksums\n", report.num_resumed_files);
  fmt::print(
      "{} tensors ({} copied, {} dequantised, {} quantised, {} cast), {:.2f} GB to {:.2f} GB in {} files, "
      "{:.1f} s\nwrote {}\n",
      report.num_tensors, report.num_copied, report.num_dequantised, report.num_quantised, report.num_cast,
      gigabytes(report.source_bytes), gigabytes(report.destination_bytes), report.num_files, report.seconds,
      options.destination.string());
}

}  // namespace

void add_convert(CLI::App& app) {
  auto options = std::make_shared<Options>();
  auto& rewrite = options->rewrite;
  CLI::App* command = app.add_subcommand("convert", "write a model directory under other names or in other dtypes");
  command->add_option("SRC", options->source, "model directory: official or Hugging Face, FP4, FP8 or plain")
      ->required();
  command->add_option("DST", options->destination, "directory to write; an interrupted conversion is taken up")
      ->required();
  add_choice<RewriteDType>(
      *command, "--dtype", rewrite.dtype,
      "bf16 (default) and fp32 decode FP8 and FP4; official: experts FP4, projections FP8; source: "
      "as stored",
      {{"bf16", RewriteDType::kBF16},
       {"fp32", RewriteDType::kF32},
       {"official", RewriteDType::kOfficial},
       {"source", RewriteDType::kSource}});
  add_choice<NameStyle>(*command, "--names", rewrite.style,
                        "transformers: as save_pretrained; modules: transformers' own, experts stacked; official: the "
                        "release's (default with --dtype official)",
                        {{"transformers", NameStyle::kTransformers},
                         {"modules", NameStyle::kModules},
                         {"official", NameStyle::kOfficial}});
  command->add_option("--allow-missing", rewrite.allow_missing,
                      "regular expression: tensors that SRC may lack, by official or parameter name");
  command->add_option("--max-shard-size", rewrite.max_shard_bytes, "largest file, as 5GB or 500MB")
      ->transform(CLI::AsSizeValue(true))
      ->check(above_zero())
      ->default_str("5GB");
  command->add_option("--threads", options->num_threads, "default: every core")->check(CLI::Range(1, 1024));
  command->add_flag("--overwrite", rewrite.overwrite, "replace the model in DST");
  command->callback([options] { run(*options); });
}

}  // namespace temper::app

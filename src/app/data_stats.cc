// temper data stats: what files hold, in tokens.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "app/data_options.h"
#include "app/numbers.h"
#include "data/reader.h"
#include "data/show.h"

namespace temper::app {
namespace {

using Paths = std::vector<std::filesystem::path>;

struct StatsArguments {
  Paths files;
  DataOptions data;
  int64_t max_tokens = 0;
};

// Of one file, or of all.
struct Stats {
  data::ReadReport report;
  data::TokenCounts counts;
  std::vector<int64_t> lengths;  // tokens of each example

  void add(const data::Example& example, const data::Tokenizer& tokenizer) {
    const data::TokenCounts one = data::count_tokens(example, tokenizer);
    counts.num_tokens += one.num_tokens;
    counts.num_trained += one.num_trained;
    counts.num_reasoning += one.num_reasoning;
    lengths.push_back(one.num_tokens);
  }

  // The length that a share of the examples does not exceed (nearest rank).
  int64_t percentile(double share) const {
    if (lengths.empty()) return 0;
    const auto rank = static_cast<size_t>(std::ceil(share * static_cast<double>(lengths.size())));
    return lengths[std::clamp<size_t>(rank, 1, lengths.size()) - 1];
  }
};

Stats measure(const std::filesystem::path& file, const data::Tokenizer& tokenizer, const StatsArguments& arguments) {
  data::ReadOptions options;
  options.conversation = arguments.data.conversation();
  options.when_untrained = data::UntrainedExample::kDrop;
  Stats stats;
  data::for_each_record(file, {.format = arguments.data.record_format()}, [&](data::Record&& record) {
    for (const data::Example& example : data::record_examples(record, tokenizer, options, stats.report))
      stats.add(example, tokenizer);
  });
  std::sort(stats.lengths.begin(), stats.lengths.end());
  return stats;
}

void print(const std::filesystem::path& file, const Stats& stats, int64_t max_tokens) {
  const auto share = [](int64_t part, int64_t whole) {
    return whole > 0 ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0.0;
  };
  const data::TokenCounts& counts = stats.counts;
  fmt::print("{}: {} records, {} examples, {} records without a trained token\n", file.string(),
             stats.report.num_records, stats.lengths.size(), stats.report.num_dropped_untrained);
  fmt::print("  {} tokens: {} prompt, {} reasoning, {} answer; {} trained ({:.1f} %)\n", counts.num_tokens,
             counts.num_prompt(), counts.num_reasoning, counts.num_answer(), counts.num_trained,
             share(counts.num_trained, counts.num_tokens));
  fmt::print("  tokens of an example: p50 {}, p90 {}, p99 {}, longest {}\n", stats.percentile(0.5),
             stats.percentile(0.9), stats.percentile(0.99), stats.percentile(1));
  if (max_tokens == 0) return;
  const auto fitting = std::upper_bound(stats.lengths.begin(), stats.lengths.end(), max_tokens);
  const int64_t num_long = stats.lengths.end() - fitting;
  fmt::print("  longer than {} tokens: {} examples ({:.1f} %)\n", max_tokens, num_long,
             share(num_long, static_cast<int64_t>(stats.lengths.size())));
}

}  // namespace

void add_data_stats(CLI::App& data) {
  auto arguments = std::make_shared<StatsArguments>();
  CLI::App* command = data.add_subcommand("stats", "records, tokens and lengths of data files");
  command->add_option("FILES", arguments->files, "data files")->required();
  command->add_option("--max-tokens", arguments->max_tokens, "also count the examples that are longer")
      ->check(above_zero());
  arguments->data.add_to(*command);
  command->callback([arguments] {
    const data::Tokenizer tokenizer = arguments->data.require_tokenizer();
    for (const auto& file : arguments->files) print(file, measure(file, tokenizer, *arguments), arguments->max_tokens);
  });
}

}  // namespace temper::app

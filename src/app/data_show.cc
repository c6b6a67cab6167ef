// temper data show: one record token by token, as the model sees it.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>

#include "app/data_options.h"
#include "app/numbers.h"
#include "data/reader.h"
#include "data/show.h"

namespace temper::app {
namespace {

struct ShowArguments {
  std::filesystem::path file;
  DataOptions data;
  int64_t sample = 1;
  int64_t max_tokens = 0;
  bool ids = false, no_color = false, raw = false;
};

void show(const ShowArguments& arguments) {
  const data::Tokenizer tokenizer = arguments.data.require_tokenizer();
  data::ReadOptions options;
  options.conversation = arguments.data.conversation();
  options.format = arguments.raw ? data::PromptFormat::kRaw : data::PromptFormat::kChat;
  options.max_tokens = arguments.max_tokens;
  options.when_untrained = data::UntrainedExample::kKeep;
  const data::Record record =
      data::read_record(arguments.file, {.format = arguments.data.record_format()}, arguments.sample);
  data::ReadReport report;
  const auto examples = data::record_examples(record, tokenizer, options, report);
  const char* no_color = std::getenv("NO_COLOR");
  const bool colors = isatty(STDOUT_FILENO) && !arguments.no_color && (!no_color || *no_color == '\0');
  fmt::print("{}: {}, {} mode, {} example{}, weight {}{}\n", record.origin, data::record_format_name(record.format),
             arguments.data.mode, examples.size(), examples.size() == 1 ? "" : "s", record.weight,
             report.num_cut > 0 ? ", cut" : "");
  for (const data::Example& example : examples) {
    const data::TokenCounts counts = data::count_tokens(example, tokenizer);
    fmt::print("{} tokens: {} prompt, {} reasoning, {} answer; {} trained ({:.1f} %)\n", counts.num_tokens,
               counts.num_prompt(), counts.num_reasoning, counts.num_answer(), counts.num_trained,
               100.0 * static_cast<double>(counts.num_trained) / static_cast<double>(counts.num_tokens));
    fmt::print("{}", data::show_tokens(example, tokenizer, {colors, arguments.ids}));
  }
}

}  // namespace

void add_data_show(CLI::App& data) {
  auto arguments = std::make_shared<ShowArguments>();
  CLI::App* command = data.add_subcommand("show", "a record token by token: what is trained and what is not");
  command->add_option("FILE", arguments->file, "data file")->required();
  command->add_option("--sample", arguments->sample, "which record, from 1 (default 1)")->check(above_zero());
  command->add_flag("--ids", arguments->ids, "the id behind every token");
  command->add_flag("--no-color", arguments->no_color, "[[trained]] and {special tokens}, as in a pipe");
  command->add_flag("--raw", arguments->raw, "prompt and completion without the conversation format");
  command->add_option("--max-tokens", arguments->max_tokens, "cut there, as a run does")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 40));
  arguments->data.add_to(*command);
  command->callback([arguments] { show(*arguments); });
}

}  // namespace temper::app

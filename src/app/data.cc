// temper data: make and look at training data.
#include <fmt/format.h>

#include <memory>

#include "app/commands.h"
#include "app/data_options.h"
#include "base/error.h"
#include "data/demo_data.h"
#include "data/records.h"
#include "data/tokenizer_trainer.h"

namespace temper::app {
namespace {

using Paths = std::vector<std::filesystem::path>;

std::string describe_demo(const data::DemoReport& report, const std::filesystem::path& out) {
  return fmt::format(
      "{}: the Bible, {} chapters, {:.1f} MB; pronunciations of {} words to train on and {} held out; tokenizer with "
      "{} "
      "ids\n",
      out.string(), report.num_chapters, 1e-6 * static_cast<double>(report.num_bible_bytes), report.num_train_words,
      report.num_heldout_words, report.vocab_size);
}

void add_prepare_demo(CLI::App& data) {
  auto out = std::make_shared<std::filesystem::path>();
  CLI::App* command =
      data.add_subcommand("prepare-demo", "the demo's Bible and pronunciations, from the system's packages");
  command->add_option("OUT", *out, "directory to write")->required();
  command->callback([out] { fmt::print("{}", describe_demo(data::prepare_demo(*out), *out)); });
}

// Every text of the files that the model would read: texts, prompts and completions, contents of messages.
std::vector<std::string> texts_of(const Paths& files) {
  std::vector<std::string> texts;
  for (const auto& file : files) {
    data::for_each_record(file, [&](data::Record&& record) {
      if (record.kind == data::RecordKind::kText) {
        texts.push_back(std::move(record.text));
        return;
      }
      for (data::Message& message : data::record_messages(record)) texts.push_back(std::move(message.content));
    });
  }
  return texts;
}

void train_tokenizer(const Paths& files, int64_t vocab_size, const std::filesystem::path& out) {
  const std::vector<std::string> texts = texts_of(files);
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  data::TrainerOptions options;
  options.vocab_size = vocab_size;
  const data::TokenizerSpec spec = data::train_tokenizer(views, options);
  data::write_tokenizer(out, spec);
  const data::Tokenizer tokenizer(spec);
  int64_t num_bytes = 0, num_tokens = 0;
  for (const auto& text : views) {
    num_bytes += static_cast<int64_t>(text.size());
    num_tokens += static_cast<int64_t>(tokenizer.encode(text, false).size());
  }
  fmt::print("{}: {} ids; {} texts, {} bytes, {} tokens: {:.2f} bytes a token\n", out.string(), tokenizer.vocab_size(),
             texts.size(), num_bytes, num_tokens, double(num_bytes) / double(num_tokens));
}

void add_train_tokenizer(CLI::App& data) {
  struct Arguments {
    Paths files;
    int64_t vocab_size = 0;
    std::filesystem::path out;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command =
      data.add_subcommand("train-tokenizer", "a byte-level BPE tokenizer of DeepSeek's kind, from your texts");
  command->add_option("FILES", arguments->files, "JSONL or text files")->required();
  command->add_option("--vocab-size", arguments->vocab_size, "ids, special tokens and the 256 bytes included")
      ->required();
  command->add_option("--out", arguments->out, "directory of tokenizer.json")->required();
  command->callback([arguments] { train_tokenizer(arguments->files, arguments->vocab_size, arguments->out); });
}

}  // namespace

void add_data(CLI::App& app) {
  CLI::App* data = app.add_subcommand("data", "make and look at training data");
  data->require_subcommand(1);
  add_prepare_demo(*data);
  add_train_tokenizer(*data);
  add_data_lint(*data);
  add_data_show(*data);
  add_data_stats(*data);
}

}  // namespace temper::app

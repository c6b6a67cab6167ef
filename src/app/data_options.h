// What the subcommands of `temper data` that read conversations have in common.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/conversation.h"
#include "data/record_formats.h"
#include "data/tokenizer.h"

namespace temper::app {

void add_data_lint(CLI::App& data);
void add_data_show(CLI::App& data);
void add_data_stats(CLI::App& data);

// How data are read: --tokenizer, --model, --prose, --mode, --format.
struct DataOptions {
  std::filesystem::path tokenizer, model, prose;
  std::string mode = "chat", format = "auto";

  void add_to(CLI::App& command);
  // The tokenizer that was named, or else the model directory's; nullopt if neither was given.
  std::optional<data::Tokenizer> load_tokenizer() const;
  // The same; without one, kInvalidArgument.
  data::Tokenizer require_tokenizer() const;
  // Mode, and the blocks of prose of the file that was named, or else of the model directory.
  data::ConversationOptions conversation() const;
  data::RecordFormat record_format() const { return data::parse_record_format(format); }
};

}  // namespace temper::app

#include "app/data_options.h"

#include "base/error.h"

namespace temper::app {

void DataOptions::add_to(CLI::App& command) {
  command.add_option("--tokenizer", tokenizer, "tokenizer.json or its directory; default: the model's");
  command.add_option("--model", model, "model directory: its tokenizer and its encoding/ are used");
  command.add_option("--prose", prose, "file with the model's blocks of prose, for tools and response formats");
  command.add_option("--mode", mode, "how conversations are written (default chat)")
      ->check(CLI::IsMember({"chat", "thinking"}));
  command.add_option("--format", format, "of the records; default: told by their fields")
      ->check(
          CLI::IsMember(std::vector<std::string>(data::kRecordFormatNames.begin(), data::kRecordFormatNames.end())));
}

std::optional<data::Tokenizer> DataOptions::load_tokenizer() const {
  if (tokenizer.empty() && model.empty()) return std::nullopt;
  return data::Tokenizer::load(tokenizer.empty() ? model : tokenizer);
}

data::Tokenizer DataOptions::require_tokenizer() const {
  auto loaded = load_tokenizer();
  if (!loaded)
    fail(ErrorCode::kInvalidArgument, "tokens need a tokenizer: give --tokenizer DIR, or --model DIR for the model's");
  return std::move(*loaded);
}

data::ConversationOptions DataOptions::conversation() const {
  data::ConversationOptions options;
  options.mode = mode == "thinking" ? data::ConversationMode::kThinking : data::ConversationMode::kChat;
  if (!prose.empty()) {
    options.prose = data::ProseBlocks::read(prose);
  } else if (!model.empty()) {
    options.prose = data::ProseBlocks::of_model(model);
  }
  return options;
}

}  // namespace temper::app

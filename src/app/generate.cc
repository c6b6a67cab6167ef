// temper generate and temper chat: answers of a model.
#include <fmt/format.h>

#include <iostream>
#include <memory>

#include "app/commands.h"
#include "app/precision.h"
#include "base/error.h"
#include "data/special_tokens.h"
#include "train/answers.h"

namespace temper::app {
namespace {

struct GenerateArguments {
  std::filesystem::path model_dir, messages;
  std::string prompt, system;
  bool raw = false;
  int64_t context = 2048;
  rollout::GenerateOptions options;
  layers::Precision precision = layers::Precision::kFp32;
};

std::unique_ptr<train::Inference> open(const GenerateArguments& arguments, int64_t max_sequences, int64_t max_length) {
  train::InferenceOptions options;
  options.model_dir = arguments.model_dir;
  options.precision = arguments.precision;
  options.max_sequences = max_sequences;
  options.max_length = max_length;
  return std::make_unique<train::Inference>(options);
}

std::vector<std::vector<data::Message>> conversations(const GenerateArguments& arguments) {
  if (arguments.messages.empty()) return {{{.role = "user", .content = arguments.prompt}}};
  std::vector<std::vector<data::Message>> out;
  data::for_each_record(arguments.messages,
                        [&](data::Record&& record) { out.push_back(data::record_messages(record)); });
  return out;
}

// The prompts as tokens: conversations in the V4 format, or BOS and the text as it stands.
std::vector<std::vector<int32_t>> encode(const GenerateArguments& arguments, const data::Tokenizer& tokenizer) {
  std::vector<std::vector<int32_t>> prompts;
  if (arguments.raw) {
    prompts.push_back(tokenizer.encode(arguments.prompt));
    if (const auto bos = tokenizer.token_id(data::kBos)) prompts[0].insert(prompts[0].begin(), *bos);
    return prompts;
  }
  for (const auto& messages : conversations(arguments))
    prompts.push_back(data::encode_prompt(messages, {}, tokenizer, "prompt"));
  return prompts;
}

void generate(const GenerateArguments& arguments) {
  if (arguments.prompt.empty() == arguments.messages.empty()) {
    fail(ErrorCode::kInvalidArgument, "give either --prompt TEXT or --messages FILE");
  }
  if (arguments.raw && !arguments.messages.empty()) {
    fail(ErrorCode::kInvalidArgument, "--raw continues a text; it goes with --prompt, not with --messages");
  }
  const data::Tokenizer tokenizer = data::Tokenizer::load(arguments.model_dir);
  const std::vector<std::vector<int32_t>> prompts = encode(arguments, tokenizer);
  int64_t longest = 0;
  for (const auto& prompt : prompts) longest = std::max(longest, static_cast<int64_t>(prompt.size()));
  constexpr int64_t kMaxSequences = 64;
  const auto inference = open(arguments, std::min(kMaxSequences, static_cast<int64_t>(prompts.size())),
                              longest + arguments.options.max_new_tokens);
  for (const std::string& answer : inference->answer(prompts, arguments.options)) fmt::print("{}\n", answer);
}

void chat(const GenerateArguments& arguments) {
  const auto inference = open(arguments, 1, arguments.context);
  std::vector<data::Message> messages;
  if (!arguments.system.empty()) messages.push_back({.role = "system", .content = arguments.system});
  fmt::print("Write a line to talk; /new starts again, /quit or end of input leaves.\n");
  rollout::GenerateOptions options = arguments.options;
  for (std::string line; fmt::print("> "), std::fflush(stdout), std::getline(std::cin, line);) {
    if (line == "/quit") break;
    if (line == "/new") messages.resize(arguments.system.empty() ? 0 : 1);
    if (line.empty() || line == "/new") continue;
    messages.push_back({.role = "user", .content = line});
    const auto prompt = data::encode_prompt(messages, {}, inference->tokenizer(), "chat");
    const int64_t room = arguments.context - static_cast<int64_t>(prompt.size());
    if (room <= 0) {
      fail(ErrorCode::kBudget, "the conversation has {} tokens and --context allows {}; start again with /new",
           prompt.size(), arguments.context);
    }
    const std::string answer = inference->answer({prompt}, options).front();
    fmt::print("{}\n", answer);
    // An empty answer cannot be part of a conversation: the question is taken back.
    if (answer.empty()) {
      messages.pop_back();
    } else {
      messages.push_back({.role = "assistant", .content = answer});
    }
    ++options.seed;  // another draw for the next turn
  }
  fmt::print("\n");
}

void add_sampling(CLI::App& command, GenerateArguments& arguments) {
  command.add_option("DIR", arguments.model_dir, "model directory")->required();
  command.add_option("--max-new-tokens", arguments.options.max_new_tokens, "longest answer (default 256)")
      ->check(CLI::PositiveNumber);
  command.add_option("--temperature", arguments.options.sampling.temperature, "0 (default): the most likely token")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--top-p", arguments.options.sampling.top_p, "share of probability to draw from (default 1)")
      ->check(CLI::Range(0.0, 1.0));
  command.add_option("--seed", arguments.options.seed, "of the draws (default 0)");
  add_precision(command, arguments.precision);
}

}  // namespace

void add_generate(CLI::App& app) {
  auto arguments = std::make_shared<GenerateArguments>();
  CLI::App* command = app.add_subcommand("generate", "answer a prompt, or every conversation of a file");
  add_sampling(*command, *arguments);
  command->add_option("--prompt", arguments->prompt, "what the user says");
  command->add_option("--messages", arguments->messages, "JSONL of conversations that end with a user's message");
  command->add_flag("--raw", arguments->raw, "continue the prompt as a text, without the conversation format");
  command->callback([arguments] { generate(*arguments); });
}

void add_chat(CLI::App& app) {
  auto arguments = std::make_shared<GenerateArguments>();
  CLI::App* command = app.add_subcommand("chat", "talk with a model, line by line");
  add_sampling(*command, *arguments);
  command->add_option("--system", arguments->system, "system message");
  command->add_option("--context", arguments->context, "longest conversation in tokens (default 2048)")
      ->check(CLI::PositiveNumber);
  command->callback([arguments] { chat(*arguments); });
}

}  // namespace temper::app

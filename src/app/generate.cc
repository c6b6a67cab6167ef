// temper generate and temper chat: answers of a model.
#include <fmt/format.h>

#include <iostream>
#include <memory>

#include "app/choice.h"
#include "app/commands.h"
#include "app/numbers.h"
#include "app/precision.h"
#include "base/error.h"
#include "data/conversation_parse.h"
#include "data/special_tokens.h"
#include "train/answers.h"

namespace temper::app {
namespace {

struct GenerateArguments {
  std::filesystem::path model_dir, messages, prose;
  std::string prompt, system;
  bool raw = false, thinking = false;
  data::ReasoningEffort effort = data::ReasoningEffort::kNone;
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

data::ConversationOptions conversation_options(const GenerateArguments& arguments) {
  data::ConversationOptions options;
  options.mode = arguments.thinking ? data::ConversationMode::kThinking : data::ConversationMode::kChat;
  options.effort = arguments.effort;
  options.prose = arguments.prose.empty() ? data::ProseBlocks::of_model(arguments.model_dir)
                                          : data::ProseBlocks::read(arguments.prose);
  return options;
}

// The messages before the first question.
std::vector<data::Message> opening(const GenerateArguments& arguments) {
  if (arguments.system.empty()) return {};
  return {{.role = "system", .content = arguments.system}};
}

std::vector<std::vector<data::Message>> conversations(const GenerateArguments& arguments) {
  if (arguments.messages.empty()) {
    std::vector<data::Message> messages = opening(arguments);
    messages.push_back({.role = "user", .content = arguments.prompt});
    return {messages};
  }
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
  const data::ConversationOptions options = conversation_options(arguments);
  for (const auto& messages : conversations(arguments))
    prompts.push_back(data::encode_prompt(messages, options, tokenizer, "prompt"));
  return prompts;
}

void generate(const GenerateArguments& arguments) {
  if (arguments.prompt.empty() == arguments.messages.empty()) {
    fail(ErrorCode::kInvalidArgument, "give either --prompt TEXT or --messages FILE");
  }
  if (arguments.raw && !arguments.messages.empty()) {
    fail(ErrorCode::kInvalidArgument, "--raw continues a text; it goes with --prompt, not with --messages");
  }
  if (!arguments.system.empty() && (arguments.raw || !arguments.messages.empty())) {
    fail(ErrorCode::kInvalidArgument, "--system goes with --prompt; a file of messages has its own, --raw has none");
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

// The answer as a message of the conversation: its reasoning and calls apart; whole as content where it is malformed.
data::Message to_message(const std::string& answer, data::ConversationMode mode) {
  auto parsed = data::parse_completion(data::split_special(answer + std::string(data::kEos)), mode);
  if (parsed.problem.empty()) return std::move(parsed.message);
  return {.role = "assistant", .content = answer};
}

void chat(const GenerateArguments& arguments) {
  const data::ConversationOptions conversation = conversation_options(arguments);
  const auto inference = open(arguments, 1, arguments.context);
  std::vector<data::Message> messages = opening(arguments);
  fmt::print("Write a line to talk; /new starts again, /quit or end of input leaves.\n");
  rollout::GenerateOptions options = arguments.options;
  for (std::string line; fmt::print("> "), std::fflush(stdout), std::getline(std::cin, line);) {
    if (line == "/quit") break;
    if (line == "/new") messages = opening(arguments);
    if (line.empty() || line == "/new") continue;
    messages.push_back({.role = "user", .content = line});
    const auto prompt = data::encode_prompt(messages, conversation, inference->tokenizer(), "chat");
    const int64_t room = arguments.context - static_cast<int64_t>(prompt.size());
    if (room <= 0) {
      fail(ErrorCode::kBudget, "the conversation has {} tokens and --context allows {}; start again with /new",
           prompt.size(), arguments.context);
    }
    const std::string answer = inference->answer({prompt}, options).front();
    fmt::print("{}\n", answer);
    data::Message message = to_message(answer, conversation.mode);
    // An answer without content or calls cannot be part of a conversation: the question is taken back.
    if (message.content.empty() && message.tool_calls.empty()) {
      messages.pop_back();
    } else {
      messages.push_back(std::move(message));
    }
    ++options.seed;  // another draw for the next turn
  }
  fmt::print("\n");
}

void add_sampling(CLI::App& command, GenerateArguments& arguments) {
  command.add_option("DIR", arguments.model_dir, "model directory")->required();
  command.add_option("--max-new-tokens", arguments.options.max_new_tokens, "longest answer (default 256)")
      ->check(above_zero());
  command.add_option("--temperature", arguments.options.sampling.temperature, "0 (default): the most likely token")
      ->check(zero_or_above());
  command.add_option("--top-p", arguments.options.sampling.top_p, "share of probability to draw from (default 1)")
      ->check(CLI::Range(0.0, 1.0));
  command.add_option("--seed", arguments.options.seed, "of the draws (default 0)");
  add_precision(command, arguments.precision);
}

void add_conversation(CLI::App& command, GenerateArguments& arguments) {
  command.add_option("--system", arguments.system, "system message");
  CLI::Option* thinking = command.add_flag("--thinking", arguments.thinking, "thinking mode: reason, then answer");
  using data::ReasoningEffort;
  add_choice<ReasoningEffort>(command, "--effort", arguments.effort, "of thinking (default none)",
                              {{"none", ReasoningEffort::kNone},
                               {"low", ReasoningEffort::kLow},
                               {"high", ReasoningEffort::kHigh},
                               {"max", ReasoningEffort::kMax}})
      ->needs(thinking);
  command.add_option("--prose", arguments.prose,
                     "file with the model's blocks of prose (tools, response format, effort); default: DIR/encoding/");
}

}  // namespace

void add_generate(CLI::App& app) {
  auto arguments = std::make_shared<GenerateArguments>();
  CLI::App* command = app.add_subcommand("generate", "answer a prompt, or every conversation of a file");
  add_sampling(*command, *arguments);
  add_conversation(*command, *arguments);
  command->add_option("--prompt", arguments->prompt, "what the user says");
  command->add_option("--messages", arguments->messages, "JSONL of conversations that end with a user's message");
  command->add_flag("--raw", arguments->raw, "continue the prompt as a text, without the conversation format");
  command->callback([arguments] { generate(*arguments); });
}

void add_chat(CLI::App& app) {
  auto arguments = std::make_shared<GenerateArguments>();
  CLI::App* command = app.add_subcommand("chat", "talk with a model, line by line");
  add_sampling(*command, *arguments);
  add_conversation(*command, *arguments);
  command->add_option("--context", arguments->context, "longest conversation in tokens (default 2048)")
      ->check(above_zero());
  command->callback([arguments] { chat(*arguments); });
}

}  // namespace temper::app

// The first byte chooses the options of the conversation, and whether the rest is a conversation's text to be parsed or
// a record to be rendered. In a text each of the bytes F1..FF stands for one of the 15 special tokens, so that
// mutations keep them whole. What is rendered or parsed once is the same text when it goes through both again.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "data/conversation.h"
#include "data/conversation_parse.h"
#include "data/record_parser.h"
#include "data/special_tokens.h"
#include "fuzz.h"

namespace temper::data {
namespace {

// Blocks of prose as short as can be, so that mutations meet them.
ProseBlocks make_prose() {
  static const std::array<std::string, kNumProseBlocks> kTexts = {"EFFORT\n", "TOOLS <｜DSML｜tool_calls>\n", "\nEND",
                                                                  "FORMAT\n"};
  static std::array<std::string, kNumProseBlocks> hashes;
  ProseHashes expected;
  nlohmann::json json;
  for (size_t i = 0; i < kNumProseBlocks; ++i) {
    json[std::string(kProseBlockNames[i])] = kTexts[i];
    expected[i] = hashes[i] = sha256_hex(kTexts[i]);
  }
  const auto file = std::filesystem::path("/dev/shm") / ("temper_prose_" + std::to_string(::getpid()) + ".json");
  std::ofstream(file) << json;
  ProseBlocks prose = ProseBlocks::read(file, expected);
  std::filesystem::remove(file);
  return prose;
}

std::vector<ConversationSpan> spans_of(std::string_view text) {
  constexpr uint8_t kFirst = 0x100 - kConversationTokens.size();
  SpanWriter writer;
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    byte >= kFirst ? writer.special(kConversationTokens[byte - kFirst]) : writer.text(std::string_view(&c, 1));
  }
  return writer.take();
}

void check_parsing(std::string_view text, const ProseBlocks& prose) {
  const auto spans = spans_of(text);
  for (const auto mode : {ConversationMode::kChat, ConversationMode::kThinking}) parse_completion(spans, mode);
  const auto parsed = parse_conversation(spans, prose, "fuzz");
  CHECK(join_spans(render_conversation(parsed.messages, parsed.options, "parsed")) == join_spans(spans));
}

void check_rendering(std::string_view text, const ConversationOptions& options) {
  const Record record = RecordParser({}).parse(text, "fuzz");
  if (record.kind == RecordKind::kText) return;
  const auto messages = record_messages(record);
  for (const auto& part : conversation_parts(messages, options, record.num_prompt_messages))
    CHECK(part.num_untrained <= part.num_messages && part.num_messages <= messages.size());
  const auto spans = render_conversation(messages, options, "fuzz");
  const auto parsed = parse_conversation(spans, options.prose, "rendered");
  CHECK(join_spans(render_conversation(parsed.messages, parsed.options, "parsed")) == join_spans(spans));
}

}  // namespace
}  // namespace temper::data

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace temper::data;
  static const ProseBlocks prose = make_prose();
  if (size == 0) return 0;
  ConversationOptions options;
  options.prose = prose;
  options.mode = data[0] & 1 ? ConversationMode::kThinking : ConversationMode::kChat;
  options.drop_thinking = data[0] & 2;
  options.train_on_history = data[0] & 4;
  options.effort = data[0] & 8 ? ReasoningEffort::kMax : ReasoningEffort::kNone;
  const std::string_view text = temper::fuzz::as_text(data + 1, size - 1);
  temper::fuzz::accepts([&] { data[0] & 16 ? check_rendering(text, options) : check_parsing(text, prose); });
  return 0;
}

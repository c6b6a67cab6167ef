#include "data/reader.h"

#include <algorithm>

#include "base/error.h"
#include "data/special_tokens.h"

namespace temper::data {
namespace {

class ExampleMaker {
 public:
  ExampleMaker(const Tokenizer& tokenizer, const ReadOptions& options, std::vector<Example>& out, ReadReport& report)
      : tokenizer_(tokenizer), options_(options), out_(out), report_(report) {
    for (const int64_t limit : {options.max_tokens, options.max_document}) {
      if (limit < 0 || limit == 1)
        fail(ErrorCode::kInvalidArgument, "a row or document of {} tokens cannot be trained on; give at least 2",
             limit);
    }
    if (options.model_vocab_size > 0 && tokenizer.vocab_size() > options.model_vocab_size)
      fail(ErrorCode::kInvalidArgument,
           "the tokenizer has {} token ids, the model's vocab_size is {}: take the tokenizer of this model",
           tokenizer.vocab_size(), options.model_vocab_size);
  }

  void add(const Record& record) {
    ++report_.num_records;
    if (record.kind == RecordKind::kText) {
      add_text(record);
    } else {
      add_conversation(record);
    }
  }

 private:
  EncodedConversation encode_raw(const Record& record) const {
    if (!record.messages.empty())
      fail(ErrorCode::kInvalidArgument, "{}:1: messages cannot be written in the raw format; use format = \"chat\"",
           record.origin);
    const std::vector<ConversationSpan> spans = {{std::string(kBos), true, false},
                                                 {record.prompt, false, false},
                                                 {record.completion, false, true},
                                                 {std::string(kEos), true, true}};
    return encode_spans(spans, tokenizer_);
  }

  void add_conversation(const Record& record) {
    const bool raw = record.kind == RecordKind::kPromptCompletion && options_.format == PromptFormat::kRaw;
    if (raw && record.completion.empty() && record.messages.empty())
      fail(ErrorCode::kInvalidArgument, "{}:1: the completion is empty", record.origin);
    if (raw) {
      add_encoded(encode_raw(record), record);
      return;
    }
    const std::vector<Message> messages = record_messages(record);
    const ConversationOptions& options = options_.conversation;
    const auto parts = conversation_parts(messages, options, record.num_prompt_messages);
    report_.num_expanded += parts.size() > 1;
    for (const ConversationPart& part : parts)
      add_encoded(encode_conversation(std::span(messages).first(part.num_messages), options, tokenizer_, record.origin,
                                      part.num_untrained),
                  record);
  }

  void add_encoded(EncodedConversation encoded, const Record& record) {
    const auto is_trained = [](const std::vector<uint8_t>& mask) {
      return std::find(mask.begin(), mask.end(), uint8_t{1}) != mask.end();
    };
    if (!is_trained(encoded.trained) && options_.when_untrained != UntrainedExample::kKeep) {
      if (options_.when_untrained == UntrainedExample::kError)
        fail(ErrorCode::kInvalidArgument,
             "{}:1: no token of this record is trained: it has no message of the assistant to learn from",
             record.origin);
      ++report_.num_dropped_untrained;
      return;
    }
    const auto length = static_cast<int64_t>(encoded.tokens.size());
    report_.longest = std::max(report_.longest, length);
    if (options_.max_tokens > 0 && length > options_.max_tokens) {
      encoded.tokens.resize(static_cast<size_t>(options_.max_tokens));
      encoded.trained.resize(static_cast<size_t>(options_.max_tokens));
      if (options_.when_long == LongExample::kDrop || !is_trained(encoded.trained)) {
        ++report_.num_dropped_long;
        return;
      }
      ++report_.num_cut;
    }
    push({std::move(encoded.tokens), std::move(encoded.trained), record.weight, record.origin});
  }

  void add_text(const Record& record) {
    if (record.text.empty()) {
      if (options_.when_untrained == UntrainedExample::kError)
        fail(ErrorCode::kInvalidArgument, "{}:1: the text is empty", record.origin);
      ++report_.num_dropped_untrained;
      return;
    }
    const std::vector<ConversationSpan> spans = {
        {std::string(kBos), true, false}, {record.text, false, true}, {std::string(kEos), true, true}};
    const EncodedConversation encoded = encode_spans(spans, tokenizer_);
    const auto length = static_cast<int64_t>(encoded.tokens.size());
    int64_t limit = options_.max_document > 0 ? options_.max_document : length;
    if (options_.max_tokens > 0) limit = std::min(limit, options_.max_tokens);
    report_.longest = std::max(report_.longest, std::min(limit, length));
    for (int64_t begin = 0; begin + 1 < length; begin += limit - 1) {
      const int64_t end = std::min(begin + limit, length);
      Example piece{{encoded.tokens.begin() + begin, encoded.tokens.begin() + end},
                    {encoded.trained.begin() + begin, encoded.trained.begin() + end},
                    record.weight,
                    record.origin};
      piece.trained[0] = 0;
      push(std::move(piece));
    }
  }

  void push(Example example) {
    ++report_.num_examples;
    report_.num_tokens += static_cast<int64_t>(example.tokens.size());
    report_.num_trained_tokens += std::count(example.trained.begin(), example.trained.end(), uint8_t{1});
    out_.push_back(std::move(example));
  }

  const Tokenizer& tokenizer_;
  const ReadOptions& options_;
  std::vector<Example>& out_;
  ReadReport& report_;
};

}  // namespace

std::vector<Example> record_examples(const Record& record, const Tokenizer& tokenizer, const ReadOptions& options,
                                     ReadReport& report) {
  std::vector<Example> out;
  ExampleMaker(tokenizer, options, out, report).add(record);
  return out;
}

std::vector<Example> read_examples(std::span<const std::filesystem::path> files, const Tokenizer& tokenizer,
                                   const ReadOptions& options, ReadReport& report) {
  std::vector<Example> out;
  ExampleMaker maker(tokenizer, options, out, report);
  for (const std::filesystem::path& file : files)
    for_each_record(file, {.format = options.record_format}, [&](Record&& record) { maker.add(record); });
  return out;
}

}  // namespace temper::data

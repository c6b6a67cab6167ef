#include "train/answers.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "train/data_setup.h"

namespace temper::train {
namespace {

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

std::string trimmed(const std::string& text) {
  const char* kWhite = " \t\r\n";
  const size_t begin = text.find_first_not_of(kWhite);
  return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(kWhite) + 1 - begin);
}

}  // namespace

std::vector<Question> read_questions(std::span<const std::filesystem::path> files, int64_t max_count) {
  std::vector<Question> questions;
  for (const auto& file : files) {
    data::for_each_record(file, [&](data::Record&& record) {
      if (max_count > 0 && static_cast<int64_t>(questions.size()) >= max_count) return;
      if (record.kind == data::RecordKind::kText) {
        fail(ErrorCode::kInvalidArgument,
             "{}: a text has no question and answer; use messages or prompt and completion", record.origin);
      }
      std::vector<data::Message> messages = data::record_messages(record);
      if (messages.size() < 2 || messages.back().role != "assistant") {
        fail(ErrorCode::kInvalidArgument, "{}: the last message must be the assistant's: it is the expected answer",
             record.origin);
      }
      std::string expected = std::move(messages.back().content);
      messages.pop_back();
      questions.push_back({std::move(messages), std::move(expected), record.origin});
    });
  }
  return questions;
}

int64_t word_edits(const std::string& from, const std::string& to) {
  const std::vector<std::string> a = words_of(from), b = words_of(to);
  std::vector<int64_t> row(b.size() + 1);  // edits from the words of a so far to the first j words of b
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 0; i < a.size(); ++i) {
    int64_t diagonal = row[0];
    row[0] += 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const int64_t substituted = diagonal + (a[i] != b[j]);
      diagonal = row[j + 1];
      row[j + 1] = std::min({substituted, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

void add_to_score(AnswerScore& score, const std::string& expected, const std::string& given) {
  score.num_questions += 1;
  score.num_exact += trimmed(expected) == trimmed(given);
  score.num_edits += word_edits(given, expected);
  score.num_expected_words += static_cast<int64_t>(words_of(expected).size());
}

Answers ask(const AskOptions& options, std::span<const Question> questions) {
  const data::Tokenizer tokenizer = data::Tokenizer::load(options.model_dir);
  data::ConversationOptions conversation;
  conversation.prose = data::ProseBlocks::of_model(options.model_dir);
  std::vector<std::vector<int32_t>> prompts;
  int64_t longest = 0;
  for (const Question& question : questions) {
    prompts.push_back(data::encode_prompt(question.messages, conversation, tokenizer, question.origin));
    longest = std::max(longest, static_cast<int64_t>(prompts.back().size()));
  }
  InferenceOptions inference_options;
  inference_options.model_dir = options.model_dir;
  inference_options.precision = options.precision;
  inference_options.max_sequences = std::min(options.max_sequences, static_cast<int64_t>(prompts.size()));
  inference_options.max_length = longest + options.generate.max_new_tokens;
  Inference inference(inference_options);
  Answers answers;
  const double start = now_seconds();
  answers.texts = inference.answer(prompts, options.generate);
  answers.seconds = now_seconds() - start;
  answers.num_tokens = inference.num_generated();
  return answers;
}

std::string answer_lines(std::span<const Question> questions, std::span<const std::string> answers) {
  std::string out;
  for (size_t i = 0; i < questions.size(); ++i) {
    AnswerScore score;
    add_to_score(score, questions[i].expected, answers[i]);
    const nlohmann::ordered_json line = {{"prompt", questions[i].messages.back().content},
                                         {"expected", questions[i].expected},
                                         {"given", answers[i]},
                                         {"exact", score.num_exact == 1}};
    out += line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  }
  return out;
}

void write_samples(const RunConfig& config, const std::filesystem::path& model_dir) {
  const std::vector<Question> questions = read_questions(expand_files(config.data.eval), config.eval.samples);
  AskOptions options;
  options.model_dir = model_dir;
  options.precision = config.train.precision == "fp32" ? layers::Precision::kFp32 : layers::Precision::kBf16;
  options.generate.max_new_tokens = config.eval.max_new_tokens;
  options.generate.sampling.temperature = config.eval.temperature;
  options.generate.sampling.top_p = config.eval.top_p;
  options.generate.seed = static_cast<uint64_t>(config.train.seed);
  write_file_atomically(std::filesystem::path(config.output.dir) / kSamplesFileName,
                        answer_lines(questions, ask(options, questions).texts));
}

}  // namespace temper::train

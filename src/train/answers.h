// Answers to the questions of a data set, scored against the ones that the data give.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "data/records.h"
#include "train/inference.h"
#include "train/run_config.h"

namespace temper::train {

// A question with its known answer: the messages before the last assistant message, and that one's content.
struct Question {
  std::vector<data::Message> messages;
  std::string expected;
  std::string origin;  // "file:line"
};

// Every record of the files that ends with an assistant message, at most max_count (0 = all). Throws kInvalidArgument,
// naming file and line, for a record that does not.
std::vector<Question> read_questions(std::span<const std::filesystem::path> files, int64_t max_count);

struct AnswerScore {
  int64_t num_questions = 0, num_exact = 0;
  int64_t num_edits = 0, num_expected_words = 0;

  double exact_match() const { return num_questions ? double(num_exact) / double(num_questions) : 0; }
  // Edits that turn the answers into the expected ones, per expected word; words stand between white space. For
  // pronunciations, written as phones, it is the phone error rate. Not bounded by 1.
  double error_rate() const { return num_expected_words ? double(num_edits) / double(num_expected_words) : 0; }
};

// White space at both ends does not count.
void add_to_score(AnswerScore& score, const std::string& expected, const std::string& given);

// Insertions, deletions and substitutions of words (Levenshtein) that turn one text into the other.
int64_t word_edits(const std::string& from, const std::string& to);

struct AskOptions {
  std::filesystem::path model_dir;
  layers::Precision precision = layers::Precision::kFp32;
  int64_t max_sequences = 256;  // decoded together
  rollout::GenerateOptions generate;
};

struct Answers {
  std::vector<std::string> texts;  // in the order of the questions
  int64_t num_tokens = 0;          // generated
  double seconds = 0;              // of decoding, prompts included
};

// Asks each question in the V4 conversation format (chat mode).
Answers ask(const AskOptions& options, std::span<const Question> questions);

// A JSON object a line: prompt (the last message), expected, given, exact.
std::string answer_lines(std::span<const Question> questions, std::span<const std::string> answers);

inline constexpr const char* kSamplesFileName = "samples.jsonl";

// Lets a run's final model answer the first eval.samples questions of data.eval and writes them to the run's
// samples.jsonl. Loads the model: call it when the memory of training is free. Throws as read_questions and ask.
void write_samples(const RunConfig& config, const std::filesystem::path& model_dir);

}  // namespace temper::train

// temper eval: loss on data, and the share of questions that the model answers exactly.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "app/commands.h"
#include "app/numbers.h"
#include "app/precision.h"
#include "base/file.h"
#include "train/answers.h"
#include "train/heldout.h"

namespace temper::app {
namespace {

struct EvalArguments {
  std::filesystem::path model_dir;
  std::vector<std::filesystem::path> data;
  bool exact_match = false;
  int64_t max_new_tokens = 64, max_examples = 0, batch = 256;
  std::filesystem::path json, answers;
  layers::Precision precision = layers::Precision::kFp32;
};

void score_answers(const EvalArguments& arguments, nlohmann::ordered_json& json) {
  const std::vector<train::Question> questions = train::read_questions(arguments.data, arguments.max_examples);
  train::AskOptions options;
  options.model_dir = arguments.model_dir;
  options.precision = arguments.precision;
  options.max_sequences = arguments.batch;
  options.generate.max_new_tokens = arguments.max_new_tokens;
  const train::Answers answers = train::ask(options, questions);

  train::AnswerScore score;
  for (size_t i = 0; i < questions.size(); ++i) train::add_to_score(score, questions[i].expected, answers.texts[i]);
  fmt::print("exact match   {:.2f} %   ({} of {} questions, greedy)\n", 100 * score.exact_match(), score.num_exact,
             score.num_questions);
  fmt::print("error rate    {:.2f} %   ({} word edits for {} expected words)\n", 100 * score.error_rate(),
             score.num_edits, score.num_expected_words);
  fmt::print("decoding      {:.0f} tokens/s\n", static_cast<double>(answers.num_tokens) / answers.seconds);
  json["exact_match"] = score.exact_match();
  json["error_rate"] = score.error_rate();
  json["num_questions"] = score.num_questions;
  if (!arguments.answers.empty())
    write_file_atomically(arguments.answers, train::answer_lines(questions, answers.texts));
}

void run(const EvalArguments& arguments) {
  const train::HeldoutOptions options{arguments.model_dir, arguments.data, arguments.max_examples, arguments.precision};
  const train::HeldoutResult result = train::heldout_loss(options);
  fmt::print("loss          {:.4f}   (mean over {} trained tokens, {:.2f} % of them the most likely one)\n",
             result.loss, result.num_targets, 100 * result.accuracy);
  nlohmann::ordered_json json = {
      {"loss", result.loss}, {"token_accuracy", result.accuracy}, {"num_targets", result.num_targets}};
  if (arguments.exact_match) score_answers(arguments, json);
  if (!arguments.json.empty()) write_file_atomically(arguments.json, json.dump(2) + "\n");
}

}  // namespace

void add_eval(CLI::App& app) {
  auto arguments = std::make_shared<EvalArguments>();
  CLI::App* command = app.add_subcommand("eval", "loss on data, and exact answers to its questions");
  command->add_option("DIR", arguments->model_dir, "model directory")->required();
  command->add_option("DATA", arguments->data, "JSONL files: messages, prompt and completion, or text")->required();
  command->add_flag("--exact-match", arguments->exact_match,
                    "also answer every question greedily: share of exact answers, edits per expected word");
  command->add_option("--max-new-tokens", arguments->max_new_tokens, "longest answer (default 64)")
      ->check(above_zero());
  command->add_option("--max-examples", arguments->max_examples, "only the first so many; 0: all (default)")
      ->check(zero_or_above());
  command->add_option("--batch", arguments->batch, "answers decoded together (default 256)")->check(above_zero());
  command->add_option("--json", arguments->json, "write the figures to this file");
  command->add_option("--answers", arguments->answers, "write every answer to this JSONL file");
  add_precision(*command, arguments->precision);
  command->callback([arguments] { run(*arguments); });
}

}  // namespace temper::app

// A model directory opened for reading: its loss on data, its answers, its continuations.
#pragma once

#include <filesystem>
#include <memory>

#include "data/tokenizer.h"
#include "rollout/decoder.h"
#include "train/session.h"

namespace temper::train {

struct InferenceOptions {
  std::filesystem::path model_dir;
  std::filesystem::path tokenizer_dir;  // empty: model_dir
  layers::Precision precision = layers::Precision::kFp32;
  int64_t row_tokens = 0;     // capacity of a packed row, for losses; 0: none are asked for
  int64_t max_sequences = 0;  // decoded together; 0: none are
  int64_t max_length = 0;     // prompt and answer, in tokens; at most the model's max_position_embeddings
};

class Inference {
 public:
  // Refuses what load_config, load_weights, Tokenizer and Session refuse, and a tokenizer with more ids than the model
  // has (both sizes are named).
  explicit Inference(const InferenceOptions& options);

  Session& session() { return *session_; }
  const data::Tokenizer& tokenizer() const { return tokenizer_; }
  int64_t num_generated() const { return num_generated_; }  // tokens made by answer() so far
  const model::Config& config() const { return session_->model().config(); }

  // Answers to prompts of token ids, without the end token and as text. The stop token is the end of sentence.
  std::vector<std::string> answer(const std::vector<std::vector<int32_t>>& prompts, rollout::GenerateOptions options);

 private:
  data::Tokenizer tokenizer_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<rollout::Decoder> decoder_;
  Book cache_book_;
  std::unique_ptr<backend::Arena> cache_;
  int64_t num_generated_ = 0;
};

}  // namespace temper::train

#include "train/inference.h"

#include <algorithm>

#include "base/error.h"
#include "checkpoint/model_dir.h"
#include "data/special_tokens.h"

namespace temper::train {
namespace {

model::ModelOptions model_options(const InferenceOptions& options) {
  model::ModelOptions out;
  out.precision = options.precision;
  out.max_tokens = std::max(options.row_tokens, options.max_sequences);
  out.max_document = std::max(options.row_tokens, options.max_length);
  out.train = false;
  return out;
}

}  // namespace

Inference::Inference(const InferenceOptions& options)
    : tokenizer_(data::Tokenizer::load(options.tokenizer_dir.empty() ? options.model_dir : options.tokenizer_dir)) {
  const model::Config config = checkpoint::load_config(options.model_dir);
  if (tokenizer_.vocab_size() > config.vocab_size) {
    fail(ErrorCode::kInvalidArgument,
         "the tokenizer has {} ids and the model {} of them (vocab_size in {}): they do not belong together",
         tokenizer_.vocab_size(), config.vocab_size, (options.model_dir / "config.json").string());
  }
  const backend::Backend& backend = backend_for(options.precision);
  session_ = std::make_unique<Session>(backend, config, model_options(options));
  checkpoint::load_weights(options.model_dir, session_->ctx(), session_->model().parameters());
  if (options.max_sequences > 0) {
    decoder_ = std::make_unique<rollout::Decoder>(session_->model(), options.max_sequences, options.max_length);
    decoder_->declare(cache_book_);
    cache_ = std::make_unique<backend::Arena>(backend.device, cache_book_);
  }
}

std::vector<std::string> Inference::answer(const std::vector<std::vector<int32_t>>& prompts,
                                           rollout::GenerateOptions options) {
  CHECK(decoder_ != nullptr);
  const auto stop = tokenizer_.token_id(data::kEos);
  options.stop_token = stop ? *stop : static_cast<int32_t>(config().eos_token_id);
  std::vector<std::string> answers;
  for (std::vector<int32_t>& tokens : decoder_->generate(session_->ctx(), prompts, options)) {
    num_generated_ += static_cast<int64_t>(tokens.size());
    if (!tokens.empty() && tokens.back() == options.stop_token) tokens.pop_back();
    // Ids that the tokenizer does not use can be drawn where the model's vocabulary is larger; they stand for nothing.
    std::erase_if(tokens, [&](int32_t id) { return id >= tokenizer_.vocab_size(); });
    answers.push_back(tokenizer_.decode(tokens));
  }
  return answers;
}

}  // namespace temper::train

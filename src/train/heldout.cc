#include "train/heldout.h"

#include <algorithm>

#include "base/error.h"
#include "checkpoint/model_dir.h"
#include "data/tokenizer.h"
#include "train/data_setup.h"
#include "train/session.h"

namespace temper::train {
namespace {

constexpr int64_t kRowTokens = 2048;  // rows are longer where an example is

std::vector<data::Example> read(const HeldoutOptions& options, const model::Config& config) {
  const data::Tokenizer tokenizer = data::Tokenizer::load(options.model_dir);
  data::ReadOptions read_options;
  read_options.conversation.prose = data::ProseBlocks::of_model(options.model_dir);
  read_options.max_tokens = config.max_position_embeddings;
  read_options.max_document =
      config.max_position_embeddings > 0 ? std::min(kRowTokens, config.max_position_embeddings) : kRowTokens;
  read_options.when_untrained = data::UntrainedExample::kDrop;
  read_options.model_vocab_size = config.vocab_size;
  data::ReadReport report;
  std::vector<data::Example> examples = data::read_examples(options.files, tokenizer, read_options, report);
  if (options.max_examples > 0 && static_cast<int64_t>(examples.size()) > options.max_examples)
    examples.resize(options.max_examples);
  if (examples.empty()) {
    fail(ErrorCode::kInvalidArgument, "none of the {} records of {} has a token to predict", report.num_records,
         options.files.front().string());
  }
  return examples;
}

}  // namespace

HeldoutResult heldout_loss(const HeldoutOptions& options) {
  const model::Config config = checkpoint::load_config(options.model_dir);
  const std::vector<data::Example> examples = read(options, config);
  int64_t capacity = kRowTokens;
  for (const data::Example& example : examples) {
    capacity = std::max(capacity, static_cast<int64_t>(example.tokens.size()));
  }
  model::ModelOptions model_options;
  model_options.precision = options.precision;
  model_options.max_tokens = capacity;
  model_options.train = false;
  Session session(backend_for(options.precision), config, model_options);
  checkpoint::load_weights(options.model_dir, session.ctx(), session.model().parameters());
  return evaluate(session.ctx(), session.model(), pack_rows(examples, capacity));
}

}  // namespace temper::train

#include "train/run_options.h"

#include <filesystem>

#include "base/file.h"
#include "checkpoint/model_dir.h"

namespace temper::train {
namespace {

layers::Precision precision_of(const RunConfig& config) {
  return config.train.precision == "fp32" ? layers::Precision::kFp32 : layers::Precision::kBf16;
}

model::Recompute recompute_of(const RunConfig& config) {
  if (config.train.recompute == "block") return model::Recompute::kBlock;
  return config.train.recompute == "full" ? model::Recompute::kFull : model::Recompute::kNone;
}

model::IndexerUse indexer_of(const RunConfig& config) {
  if (config.train.indexer == "warm-up") return model::IndexerUse::kWarmUp;
  return config.train.indexer == "train" ? model::IndexerUse::kTrain : model::IndexerUse::kFrozen;
}

}  // namespace

// model.config may be the file or the directory that holds it.
model::Config read_model_config(const RunConfig& config) {
  if (!config.model.path.empty()) return checkpoint::load_config(config.model.path);
  const std::filesystem::path path(config.model.config);
  if (std::filesystem::is_directory(path)) return checkpoint::load_config(path);
  return model::parse_config(read_file(path), path.string());
}

model::ModelOptions model_options(const RunConfig& config, bool mtp) {
  model::ModelOptions options;
  options.precision = precision_of(config);
  options.max_tokens = config.train.tokens_per_micro_batch;
  options.max_document = config.data.max_document;
  options.recompute = recompute_of(config);
  options.indexer = indexer_of(config);
  options.frozen = config.train.freeze;
  options.mtp = mtp;
  options.part.expert_rows = config.layout.expert_rows;
  if (config.run.exact) options.part.exact_micro_batches = config.train.gradient_accumulation;
  return options;
}

parallel::Layout layout_of(const RunConfig& config) {
  const auto& l = config.layout;
  return {l.dp, l.ep, l.pp, l.cp, l.tp, l.zero, parallel::schedule_of(l.schedule), l.chunks, l.overlap};
}

}  // namespace temper::train

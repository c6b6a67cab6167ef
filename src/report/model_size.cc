#include "report/model_size.h"

#include <string>

#include "model/model.h"

namespace temper::report {
namespace {

bool is_buffer(const std::string& name) {
  return name.ends_with("tid2eid") || name.ends_with("e_score_correction_bias");
}

}  // namespace

ModelSize measure(const model::Config& config) {
  const model::Model model(config, {.max_tokens = 1, .train = false, .mtp = config.num_nextn_predict_layers == 1});
  ModelSize size;
  int64_t routed = 0;
  for (const layers::Parameter* parameter : model.parameters()) {
    if (is_buffer(parameter->name)) continue;
    const int64_t count = parameter->shape.size();
    if (parameter->name.starts_with("mtp.")) {
      size.prediction_block += count;
      continue;
    }
    size.by_group[static_cast<size_t>(optim::group_of(parameter->name))] += count;
    size.total += count;
    if (parameter->name.find(".mlp.experts.") != std::string::npos) routed += count;
  }
  const int64_t idle = routed / config.n_routed_experts * (config.n_routed_experts - config.num_experts_per_tok);
  size.active = size.total - idle - config.vocab_size * config.hidden_size;
  return size;
}

}  // namespace temper::report

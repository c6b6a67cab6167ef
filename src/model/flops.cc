// Model FLOPs of a training step, for MFU (docs/numerics.md; post-training page 4.9).
//
//   F = 3 * (2 * P_active + 4 N H * pairs) per trained token, + the forward of the frozen indexer where it runs
//
// P_active: parameters that a token multiplies with, routed experts counted K of E. The head is counted at positions
// with a target only, since it runs only there. Recomputation, padding and the optimizer are not model FLOPs.
#include "model/model.h"
#include "model/model_impl.h"

namespace temper::model {
namespace {

// Parameters of the matrices that every token passes through, apart from embedding, head and indexer.
double active_parameters(const Model& model) {
  const Config& c = model.config();
  double total = 0;
  for (const layers::Parameter* p : model.parameters()) {
    if (!p->decay || p->name == "model.embed_tokens.weight" || p->name == "lm_head.weight") continue;
    if (p->name.find(".indexer.") != std::string::npos) continue;
    const bool routed = p->name.find(".experts.") != std::string::npos;
    total += p->shape.size() * (routed ? static_cast<double>(c.num_experts_per_tok) / c.n_routed_experts : 1.0);
  }
  return total;
}

}  // namespace

double Model::train_flops(const layers::HostLayout& layout, int64_t num_targets) const {
  const Config& c = config_;
  const double T = static_cast<double>(layout.position_T.size());
  double pairs = 0, indexer = 0;
  for (int64_t l = 0; l < c.num_hidden_layers; ++l) {
    pairs += layout.num_window_pairs;
    for (const auto& entries : layout.entries) {
      if (entries.rate != c.compress_rate(l)) continue;
      const bool csa = c.layer_types[l] == AttentionKind::kCsa;
      const bool indexed = csa && entries.max_count > c.index_topk;
      pairs += count_entry_pairs(entries, indexed ? c.index_topk : entries.max_count);
      if (!indexed) continue;
      const double width = static_cast<double>(c.index_n_heads) * c.index_head_dim;
      const double weights =
          width * c.q_lora_rank + c.index_n_heads * c.hidden_size + 4.0 * c.index_head_dim * c.hidden_size;
      indexer += 2 * T * weights + 2 * width * count_entry_pairs(entries, entries.max_count);
    }
  }
  const double head = static_cast<double>(c.vocab_size) * c.hidden_size * num_targets;
  const double attention = 4.0 * c.num_attention_heads * c.head_dim * pairs;
  return 3 * (2 * (active_parameters(*this) * T + head) + attention) + indexer;
}

}  // namespace temper::model

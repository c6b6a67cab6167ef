// Model FLOPs of a training step, for MFU (docs/numerics.md; post-training page 4.9).
//
//   F = 2 P T (1 + dx + dw) for each matrix P that T tokens pass; 4 N H * pairs (1 + 2 dx) for attention;
//   dx = 1 where something below is trained, dw = 1 where the matrix is: 6 P T and 12 N H * pairs when all is trained
//
// Routed experts are counted K of E. The head is counted at positions with a target only, since it runs only there. The
// indexer is counted where it runs: forward where entries are chosen, three times that where it is trained.
// Recomputation, padding and the optimizer are not model FLOPs.
#include "model/model.h"
#include "model/model_impl.h"

namespace temper::model {
namespace {

// Of the matrices in the list that every token passes through, apart from the indexer's.
double matrix_flops(const layers::ParameterList& list, const Config& c, double num_tokens, bool dx) {
  double total = 0;
  for (const layers::Parameter* p : list) {
    if (!p->decay || p->name.find(".indexer.") != std::string::npos) continue;
    const bool routed = p->name.find(".experts.") != std::string::npos;
    const double share =
        routed ? static_cast<double>(c.num_experts_per_tok) / static_cast<double>(c.n_routed_experts) : 1.0;
    total += 2 * static_cast<double>(p->whole_shape().size()) * share * num_tokens * (1 + dx + p->trainable);
  }
  return total;
}

// The indexer's projections and scores, forward.
double indexer_flops(const Config& c, const layers::EntryLayout& entries, double num_tokens) {
  const double width = static_cast<double>(c.index_n_heads * c.index_head_dim);
  const double weights = width * static_cast<double>(c.q_lora_rank) +
                         static_cast<double>((c.index_n_heads + 4 * c.index_head_dim) * c.hidden_size);
  return 2 * num_tokens * weights + 2 * width * count_entry_pairs(entries, entries.max_count);
}

}  // namespace

double Model::train_flops(const layers::HostLayout& layout, int64_t num_targets) const {
  const Config& c = config_;
  Impl& m = *impl_;
  const double T = static_cast<double>(layout.position_T.size());
  const double pair = 4.0 * static_cast<double>(c.num_attention_heads * c.head_dim);
  double total = 0;
  for (int64_t l = 0; l < c.num_hidden_layers; ++l) {
    const bool dx = l >= m.lowest_trained;
    layers::ParameterList list;
    m.blocks[l]->collect(list);
    total += matrix_flops(list, c, T, dx);
    double pairs = layout.num_window_pairs;
    for (const auto& entries : layout.entries) {
      if (entries.rate != c.compress_rate(l)) continue;
      const bool csa = c.layer_types[l] == AttentionKind::kCsa;
      const bool chosen = csa && !m.attends_to_all && entries.max_count > c.index_topk;
      pairs += count_entry_pairs(entries, chosen ? c.index_topk : entries.max_count);
      if (csa && (chosen || m.indexer_is_trained))
        total += (m.indexer_is_trained ? 3 : 1) * indexer_flops(c, entries, T);
    }
    total += pair * pairs * (1 + 2 * dx);
  }
  const bool heads_dx = m.lowest_trained <= c.num_hidden_layers;
  layers::ParameterList head;
  m.head_hyper.collect(head);
  total += matrix_flops(head, c, T, heads_dx);
  layers::ParameterList lm_head;
  m.lm_head.collect(lm_head);
  total += matrix_flops(lm_head, c, static_cast<double>(num_targets), heads_dx);
  if (m.mtp) {
    // Its rows are all but a document's last, its targets all but one more; documents are long against that.
    layers::ParameterList mtp;
    m.mtp->collect(mtp);
    total += matrix_flops(mtp, c, T, heads_dx) + matrix_flops(lm_head, c, static_cast<double>(num_targets), heads_dx) +
             pair * layout.num_window_pairs * (1 + 2 * heads_dx);
  }
  return total;
}

}  // namespace temper::model

// The released models' shapes, as far as layouts and costs depend on them (post-training page 0.3).
#pragma once

#include <algorithm>

#include "model/config.h"

namespace temper::parallel {

inline model::Config v4_flash() {
  model::Config c;
  c.vocab_size = 129280, c.hidden_size = 4096, c.num_hidden_layers = 43;
  c.num_attention_heads = 64, c.head_dim = 512, c.qk_rope_head_dim = 64, c.q_lora_rank = 1024;
  c.o_groups = 8, c.o_lora_rank = 1024, c.sliding_window = 128;
  c.index_n_heads = 64, c.index_head_dim = 128, c.index_topk = 512;
  c.n_routed_experts = 256, c.num_experts_per_tok = 6, c.moe_intermediate_size = 2048;
  c.num_nextn_predict_layers = 1;
  c.layer_types.assign(2, model::AttentionKind::kSliding);
  for (int64_t l = 2; l < c.num_hidden_layers; ++l)
    c.layer_types.push_back(l % 2 == 0 ? model::AttentionKind::kCsa : model::AttentionKind::kHca);
  c.is_hash_moe.assign(c.num_hidden_layers, false);
  std::fill_n(c.is_hash_moe.begin(), 3, true);
  return c;
}

inline model::Config v4_pro() {
  model::Config c = v4_flash();
  c.hidden_size = 7168, c.num_hidden_layers = 61, c.num_attention_heads = 128, c.q_lora_rank = 1536, c.o_groups = 16;
  c.n_routed_experts = 384, c.moe_intermediate_size = 3072, c.index_topk = 1024;
  c.layer_types.assign(2, model::AttentionKind::kHca);
  for (int64_t l = 2; l < c.num_hidden_layers; ++l)
    c.layer_types.push_back(l % 2 == 0 ? model::AttentionKind::kCsa : model::AttentionKind::kHca);
  c.is_hash_moe.assign(c.num_hidden_layers, false);
  std::fill_n(c.is_hash_moe.begin(), 3, true);
  return c;
}

}  // namespace temper::parallel

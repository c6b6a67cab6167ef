// The released checkpoints without their weights: names, shapes and dtypes of every stored tensor, written down from
// the architecture page (1.1, 1.3, 10.2) and not from the code under test, and directories whose data are holes.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"

namespace temper::checkpoint {

// The numbers of a released model that decide its shapes, under the names of config.json.
struct Release {
  std::string name;
  int64_t vocab_size, hidden_size, num_hidden_layers, num_attention_heads, head_dim, q_lora_rank, o_groups, o_lora_rank;
  int64_t index_n_heads, index_head_dim, index_topk, n_routed_experts, num_experts_per_tok, moe_intermediate_size;
  int64_t num_hash_layers, hc_mult, first_ratio;  // of layers 0 and 1: 0 or 128
  double routed_scaling_factor;
  int num_shards;
};
Release flash();
Release pro();
Release tiny();  // a layer of each kind, of a few kilobytes

std::string config_json(const Release& release);

// The tensors of the instruct checkpoint (FP4 experts, FP8 projections), MTP block included.
std::vector<TensorInfo> release_tensors(const Release& release);

// Writes config.json, the index and num_shards files whose headers are real and whose data are holes. False if the file
// system has no holes.
bool write_sparse(const std::filesystem::path& dir, const Release& release, const std::vector<TensorInfo>& tensors);

// Writes model.safetensors with numbers that differ by tensor and element, and config.json. Codes and scales are valid;
// full_range: each block of codes has one of the largest magnitude, so that its scale follows from its numbers.
void write_filled(const std::filesystem::path& dir, const Release& release, const std::vector<TensorInfo>& tensors,
                  bool full_range);

}  // namespace temper::checkpoint

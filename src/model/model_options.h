// What of a model a rank has, and how it is run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/thread.h"
#include "layers/ctx.h"
#include "layers/parameter.h"
#include "layers/tensor_part.h"
#include "layers/token_layout.h"
#include "model/keep_policy.h"

namespace temper::model {

// What becomes of the lightning indexer's weights.
enum class IndexerUse : uint8_t {
  kFrozen,  // as loaded
  kTrain,   // they follow the attention by their own loss, beside the model
  kWarmUp,  // nothing else is trained, and attention reads every visible entry meanwhile
};

// The two sites of a main layer (block.h): which of them somebody has.
struct LayerSites {
  bool attention = true, experts = true;
  bool any() const { return attention || experts; }
};

// Sites [begin, end) of the main layers, which follow one another on the same residual streams: site 2 l is the
// attention of layer l, site 2 l + 1 its experts.
struct SiteRange {
  int64_t begin, end;
  bool operator==(const SiteRange&) const = default;
  bool has(int64_t site) const { return site >= begin && site < end; }
  LayerSites of(int64_t layer) const { return {has(2 * layer), has(2 * layer + 1)}; }
  // Layers that it has at least one site of: [first_layer, end_layer).
  int64_t first_layer() const { return begin / 2; }
  int64_t end_layer() const { return (end + 1) / 2; }
};

// Which part of a model a rank has. Its groups are those of Ctx.
struct ModelPart {
  // Main layers: a run of their sites for each chunk of the rank's stage, in ascending order and apart from one
  // another; empty: all of them. Who has the first one has the embedding; who has the last one, final norm, head and
  // MTP.
  std::vector<SiteRange> chunks;
  int64_t ep_rank = 0, ep_size = 1;  // experts [rank, rank + 1) * E / size of every layer
  // Rows (token, slot) that a rank's experts take at once, those of padding included; more come in further rounds, of
  // which backward computes everything again. At least what max_tokens need on one rank. 0: what comes at worst, all
  // micro-batches of the ep ranks to one of them, and so ep_size times the memory of even loads.
  int64_t expert_rows = 0;
  // Passes of a micro-batch through a chunk that are alive at once, from their forward to the end of their backward.
  int64_t num_slots = 1;
  // Backward in two passes: backward_inputs leaves the products of matrices' gradients, and what they are formed from,
  // to backward_weights.
  bool weights_later = false;
  int64_t cp_rank = 0, cp_size = 1;  // rows of every micro-batch, in contiguous shards
  int64_t tp_rank = 0, tp_size = 1;  // heads, output groups and the vocabulary; elsewhere the rows of a shard
  layers::TensorPart tensor() const { return {tp_rank, tp_size}; }
  // Of a main layer. Where layers are cut, their two sites are on two ranks.
  LayerSites sites_of(int64_t layer) const {
    for (const SiteRange& sites : chunks)
      if (const LayerSites found = sites.of(layer); found.any()) return found;
    return {chunks.empty(), chunks.empty()};
  }
  // Ranks with equal whole weights, with equal slices of what tp cuts, with equal experts; what they share (ZeRO):
  // 0 nothing, 1 masters and moments, 2 also the layers' gradients, 3 also the layers' weights.
  layers::Share share, slice_share, expert_share;
  int64_t zero = 0;
  // Ranks exchange weights and gradients beside computation; whole ones of what comes and goes then exist for two
  // layers.
  bool overlap = false;
  // Sums over micro-batches and ranks are formed in one tree whatever the layout; of at most this many micro-batches of
  // a rank in a step. 0: in the order of their arrival.
  int64_t exact_micro_batches = 0;
  bool exact() const { return exact_micro_batches > 0; }
};

struct ModelOptions {
  layers::Precision precision = layers::Precision::kFp32;
  int64_t max_tokens = 0;      // capacity T of a micro-batch
  int64_t max_document = 0;    // longest document: length of the rotary tables; 0 = max_tokens
  int64_t logit_chunk = 1024;  // tokens whose logits exist at once
  Recompute recompute = Recompute::kNone;
  bool train = true;      // false: no gradients, moments or saved tensors are declared
  bool optimizer = true;  // with train: declare AdamW moments
  bool mtp = false;       // with the multi-token-prediction block ("mtp.0.*")
  IndexerUse indexer = IndexerUse::kFrozen;
  std::vector<std::string> frozen = {};  // parameters that are not trained: names, in which * stands for any characters
  int64_t num_threads = temper::num_threads();  // DeviceInfo::num_threads; sizes the workspace of attention's backward
  ModelPart part = {};

  // Rows of a micro-batch that a rank has at most: together with those of its tensor parallel group, and of them its
  // own.
  layers::RowCapacity rows() const { return {(max_tokens + part.cp_size - 1) / part.cp_size, part.cp_size}; }
  int64_t own_rows() const { return part.tensor().piece(rows().max_rows); }
};

}  // namespace temper::model

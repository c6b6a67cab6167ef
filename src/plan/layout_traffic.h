// What ranks send one another, by formulas: what the step does (layers/attention.cc, moe.cc, embedding.cc, lm_head.cc,
// compressor.cc, context_exchange.h), counted without doing it (post-training 4.3 to 4.6). A test compares the bytes
// with those of steps that ran.
//
// T rows of a shard (cp), P of a rank (cp and tp); A, C bytes of an activation and of what is accumulated. Of a layer's
// attention, forward and backward:
//   cp   keys that windows read, rows that entries are made from, entries of all ranks; their gradients back
//   tp   T (Q + H) A latents, T 2Z C projections for entries, T W (A) output groups of W = G O / tp columns there and
//        back as rows of tp W; their gradients back, the latents' in C
// Of its experts:
//   ep   P K rows of D A there and back, twice; weights of C; how many rows come
// The ends: tp  T D A embeddings, T D A rows of the head, five numbers a target; gradients of the rows in C
//           cp  log-probabilities
#pragma once

#include <vector>

#include "layers/token_layout.h"
#include "plan/dry_run.h"

namespace temper::plan {

// Of one rank with the others of an axis.
struct Messages {
  double calls = 0;
  double bytes = 0;  // as Comm::traffic() counts them: of the rank's views
  double sent = 0;   // bytes that leave the rank, at best
  double moved = 0;  // bytes that are read and written to lay rows out for it

  void gather(double all_bytes, int64_t num_ranks);  // or reduce_scatter
  void all_reduce(double num_bytes, int64_t num_ranks);
  // all_to_all_v of rows that lie elsewhere, and are put elsewhere.
  void exchange(double from_bytes, double to_bytes, int64_t num_ranks);
  void pass(double sent_bytes, double received_bytes);  // point to point; nothing where both are 0
  void add(const Messages& other, double times = 1);
};

// Of something's forward or backward over one micro-batch.
struct PassTraffic {
  Messages cp, tp, ep;
  void add(const PassTraffic& other, double times = 1);
};
struct Traffic {
  // rebuilt: forward once more, from the choices that the first left.
  PassTraffic forward, rebuilt, backward;
  void add(const Traffic& other);
};

// A full row of documents, cut into shards.
class CutRow {
 public:
  CutRow(const DryRunRequest& request, int64_t num_ranks);
  const layers::HostLayout& of(int64_t cp_rank) const { return shard_R_[cp_rank]; }
  // Forward, of a layer's attention and indexer over the rank's rows, without projections.
  double attention_flops(const model::Config& config, model::AttentionKind kind, int64_t cp_rank) const;
  int64_t num_targets(int64_t cp_rank) const { return num_targets_R_[cp_rank]; }
  int64_t num_rows() const { return shard_R_[0].cut.begin_R.back(); }

 private:
  std::vector<layers::HostLayout> shard_R_;
  std::vector<int64_t> num_targets_R_;
};

// The messages of one rank.
class LayoutTraffic {
 public:
  // All of them must stay. layout: resolved, with as many shards as the row.
  LayoutTraffic(const DryRunRequest& request, const parallel::Layout& layout, const CutRow& row, int64_t cp_rank,
                int64_t tp_rank);

  // layer: num_hidden_layers for the prediction block.
  Traffic attention(int64_t layer) const;
  Traffic experts(int64_t layer) const;
  Traffic embedding() const;
  // Log-probabilities of all rows: head and results.
  Traffic head() const;
  // Of a boundary of the pipeline, one way: streams (of which dtype bytes) of the own rows.
  double stream_bytes(double dtype_bytes) const;

 private:
  void add_history(Traffic& to, const layers::History& needed_R, int64_t width, bool of_windows) const;
  void add_entries(Traffic& to, const layers::EntryLayout& entries, int64_t width, int64_t Z, bool is_csa) const;
  Messages columns_to_rows(int64_t columns, double dtype_bytes) const;

  const DryRunRequest& request_;
  const parallel::Layout& layout_;
  const CutRow& row_;
  const layers::HostLayout& shard_;
  layers::TensorPart part_;
  int64_t T_, P_;
  double A_, C_;
};

}  // namespace temper::plan

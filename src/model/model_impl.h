// Inside of Model: its layers and the tensors of one micro-batch. Private to model/ and to the decoder.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include "layers/embedding.h"
#include "layers/lm_head.h"
#include "model/block.h"
#include "model/model.h"
#include "model/mtp.h"

namespace temper::model {

struct Model::Impl {
  Impl(const Config& config, const ModelOptions& options);

  layers::Dtypes dtypes;
  // Sites of main layers that follow one another, and where their streams are.
  struct Chunk {
    SiteRange sites;
    KeepPlan keep;
    std::vector<View> stream_buffers;  // act [T, M, D], by KeepPlan
  };
  std::vector<Chunk> chunks;
  size_t selected_chunk = 0;
  layers::TensorPart tensor_part;
  layers::Embedding embedding;
  std::vector<std::unique_ptr<Block>> blocks;
  layers::HyperConnection head_hyper;
  layers::RmsNorm norm;
  layers::LmHead lm_head;
  layers::RotaryTable main_rotary, compress_rotary;
  std::unique_ptr<Mtp> mtp;                  // of the last part, where the model has it
  std::vector<layers::ParameterList> units;  // see parameter_units()
  WeightKeeper* keeper = nullptr;
  int64_t lowest_trained = 0;       // block: below it nothing is trained but indexers; -1: the embedding is
  bool indexer_is_trained = false;  // at least one
  bool attends_to_all = false;      // warm-up of the indexer

  // What the current micro-batch leaves for its backward pass, apart from saved tensors.
  struct Slot {
    layers::DeviceLayout layout;
    std::vector<int32_t> tokens, targets;
    std::vector<layers::EntryUse> entry_uses;  // of its forward pass, by layer
  };
  layers::DeviceLayout layout;
  std::vector<int32_t> tokens, targets;
  std::vector<layers::EntryUse> entry_uses;
  std::vector<Slot> parked;  // of the other micro-batches that are alive; that of the current one is empty
  int64_t slot = 0;
  // Products that the backward pass of a slot's micro-batch has put off, by unit in their order.
  struct UnitWork {
    int64_t unit;
    layers::WeightWork work;
  };
  std::vector<std::vector<UnitWork>> later;
  const Book* book = nullptr;
  // Choices from outside, of all rows of the current micro-batch; and where no row is left to be computed, which all
  // ranks that have some of them must know alike: computing may be collective.
  struct Given {
    Choices choices;
    struct Complete {
      bool experts = true, entries = true;
    };
    std::vector<Complete> complete_L;
  };
  std::optional<Given> given;
  bool with_mtp = false;  // whether the model has it, here or on another rank
  const Chunk& chunk() const { return chunks[selected_chunk]; }
  bool is_first(const Chunk& of) const { return of.sites.begin == 0; }
  bool is_last(const Chunk& of) const { return of.sites.end == 2 * std::ssize(blocks); }
  bool has_first() const { return is_first(chunks.front()); }
  bool has_last() const { return is_last(chunks.back()); }
  View given_expert_TK, given_selected_TA;  // i32: given choices of one layer
  // By layer, the prediction block last; sums since zero_gradients().
  View load_LE;                         // i32: tokens that chose each expert
  View entropy_L;                       // acc: entropy of the router's scores
  View clamped_L3;                      // i64: elements that the clamp cut
  View balance_L, indexer_L;            // acc: auxiliary losses
  std::vector<int64_t> counted_rows_L;  // rows behind the statistics
  layers::HyperConnection::Saved head_saved;
  layers::LmHead::Saved lm_saved, mtp_lm_saved;
  View v_TD, v_rstd_T, y_TD;  // after the collapse, and normed: act, acc, act
  View dx_TMD;                // acc
  View dv_TD, mtp_dv_TD;      // acc: gradients of y, then of v; from logprobs to backward

  const layers::RotaryTable& rotary(const Config& config, int64_t layer) const {
    return config.compress_rate(layer) > 0 ? compress_rotary : main_rotary;
  }
  void collect_ends(layers::ParameterList& list);
  // The unit's values are there until release(). next: the unit that runs after it, if that is known, whose values are
  // fetched meanwhile.
  static constexpr int64_t kUnknown = -2;
  void get(layers::Ctx& ctx, int64_t unit, int64_t next) const {
    if (!keeper) return;
    keeper->gather(ctx, unit);
    if (next != kUnknown) keeper->gather(ctx, next);
    keeper->get(ctx, unit);
  }
  void release(int64_t unit) const {
    if (keeper) keeper->release(unit);
  }
  // What runs after backward of a layer of the chunk, down to `end`: the layer below, or the first that is computed
  // again for it.
  int64_t next_in_backward(int64_t layer, int64_t end) const;
  // Around what adds to the gradients of a unit, or with weights_later to those of a kind. The products of a layer are
  // then put off until run_later.
  void begin_backward(layers::Ctx& ctx, int64_t unit, int64_t next, bool weights_later);
  void end_backward(layers::Ctx& ctx, int64_t unit, bool weights_later);
  void end_backward(layers::Ctx& ctx, int64_t unit, GradientKind kind) const;
  // Before the chunk's sites of a layer, or after those of the one before it.
  View streams(int64_t layer) const {
    const Chunk& c = chunk();
    return c.stream_buffers[c.keep.stream_buffer[layer - c.sites.first_layer()]].first(num_rows());
  }
  // Collapse, final norm: fills y_TD from the streams after the last layer.
  void collapse(layers::Ctx& ctx, View x_TMD) const;
  // Runs a block's forward again, with the choices of the first time so that it takes the same route.
  void rebuild(layers::Ctx& ctx, const Config& config, int64_t layer, int64_t next) const;
  Block& block(int64_t layer) { return layer < static_cast<int64_t>(blocks.size()) ? *blocks[layer] : mtp->block(); }
  int64_t num_blocks() const { return static_cast<int64_t>(blocks.size()) + (with_mtp ? 1 : 0); }
  LayerSites here(int64_t layer) const {
    if (layer < std::ssize(blocks)) return blocks[layer]->here();
    return {mtp != nullptr, mtp != nullptr};
  }
  // Rows of this rank; layout has those of its tensor parallel group.
  int64_t num_rows() const { return tensor_part.end(layout.num_tokens()) - tensor_part.begin(layout.num_tokens()); }
  // The rows of a layer, and those of them that this rank's tensor parallel group has.
  const layers::RowCut& group_cut(int64_t layer) const {
    return layer == std::ssize(blocks) ? mtp->cut() : layout.cut();
  }
  int64_t group_rows(int64_t layer) const { return group_cut(layer).num_rows(); }
  // Uploads the given choices of a layer and says how it chooses.
  Block::Choosing choosing(layers::Ctx& ctx, int64_t layer);
  // whole: the layout of all rows of the micro-batch, whose tokens are there already.
  void take_given(const Config& config, const Choices* choices, const layers::HostLayout& whole, int64_t num_documents);
  // dLoss/dlogp of the head's next use, as far as something behind the head is trained.
  layers::LmHead::Known known(const View& dv, int64_t num_rows, std::span<const double> dlogp) const {
    const bool is_used = !dlogp.empty() && lowest_trained <= static_cast<int64_t>(blocks.size());
    return is_used ? layers::LmHead::Known{dlogp, dv.first(num_rows)} : layers::LmHead::Known{};
  }
  // Fills dx_TMD with the gradient of the streams after the last main layer.
  void backward_heads(layers::Ctx& ctx, int64_t num_layers, const LossGradients& gradients, bool weights_later);
  static bool routes_by_score(const Config& config, int64_t layer) {
    return layer == config.num_hidden_layers || !config.is_hash_moe[layer];
  }
  View load_E(int64_t layer) const { return load_LE.slice(0, layer, layer + 1).reshape({load_LE.dim(1)}); }
  void add_statistics(layers::Ctx& ctx, const Config& config, int64_t layer);
  layers::Moe::Balance balance_of(int64_t layer, double coefficient) const {
    const bool is_mtp = layer == static_cast<int64_t>(blocks.size());
    return {coefficient, balance_L.slice(0, layer, layer + 1), std::ssize(is_mtp ? mtp->batch().tokens : targets)};
  }
};

}  // namespace temper::model

// One attention layer on a LayerRig: its parameters and saved tensors, rotation table, layout, and a pass's tensors.
#pragma once

#include <string>
#include <vector>

#include "base/thread.h"
#include "layer_rig.h"
#include "layers/attention.h"

namespace temper::layers {

inline constexpr int64_t kWindow = 6;

// Of the attentions under test: rate 0 sliding, else compressed, csa with an indexer.
inline AttentionDims attention_dims(int64_t rate, bool csa, int64_t num_heads = 4, int64_t num_groups = 2) {
  AttentionDims dims{.D = 10, .N = num_heads, .H = 12, .Q = 7, .G = num_groups, .O = 5};
  dims.rate = rate, dims.csa = csa, dims.window = kWindow;
  if (csa) dims.indexer = {10, 7, 3, 12, 2, rate, 1e-6};
  return dims;
}

inline std::vector<double> to_vector(const View& view) {
  return view.size() == 0 ? std::vector<double>{}
                          : std::vector<double>(view.data<double>(), view.data<double>() + view.size());
}

class AttentionRig : public LayerRig {
 public:
  // Most rows of the tensors of a pass; they may differ where rows are cut over ranks.
  struct Rows {
    int64_t given, made, selected;  // h and dy, y and dh, the indexer's choices
  };

  AttentionRig(const AttentionDims& dims, int64_t num_positions, const RowCapacity& capacity, const Rows& rows)
      : attention("a.", dims, kDtypes) {
    if (dims.rate > 0) rates_ = {dims.rate};
    attention.collect(list);
    declare_parameters(list);
    rotary.declare(book, num_positions, DType::kF64);
    layout.declare(book, capacity, rates_);
    attention.declare_saved(book, saved_, capacity.max_rows);
    attention.declare_scratch(book, capacity.max_rows, num_threads(), true);
    for (View* view : {&h, &dy}) declare(*view, {rows.given, dims.D});
    for (View* view : {&y, &dh}) declare(*view, {rows.made, dims.D});
    if (dims.csa) declare_index(selected, {rows.selected, dims.indexer.A});
    declare(loss_1, {1});
    grant(list);
  }

  HostLayout whole_layout(const MicroBatch& batch) const { return make_layout(batch.cu_seqlens, kWindow, rates_); }
  // Before a pass over this batch; the loss and all gradients are 0. What the pass saves.
  Attention::Saved begin(Ctx& ctx, const MicroBatch& batch, const HostLayout& tokens) {
    rotary.prepare(ctx);
    layout.upload(ctx.device, ctx.stream, batch, tokens);
    ctx.ops.fill(ctx.stream, loss_1, 0);
    for (const Parameter* p : list) ctx.ops.fill(ctx.stream, p->grad, 0);
    return attention.first(saved_, layout);
  }

  Attention attention;
  RotaryTable rotary{"rotary", {8, 160000, true, 16, 32, 1, 64}};
  DeviceLayout layout;
  ParameterList list;
  View h, dy, y, dh, selected, loss_1;

 private:
  std::vector<int64_t> rates_;
  Attention::Saved saved_;
};

}  // namespace temper::layers

// Forward and backward of a whole model over one micro-batch.
#include <algorithm>

#include "model/model_impl.h"
#include "model/parameter_memory.h"

namespace temper::model {

using layers::Ctx;
using layers::LayerScope;
using layers::Parameter;

namespace {

// What a rank has of values by row of the whole micro-batch; nothing of nothing.
template <class T>
std::span<const T> own_rows(std::span<const T> values, const layers::RowCut& cut) {
  return values.empty() ? values : values.subspan(cut.begin(), cut.num_rows());
}

}  // namespace

void Model::Impl::collapse(Ctx& ctx, View x_TMD) const {
  const int64_t T = x_TMD.dim(0);
  head_hyper.pre(ctx, v_TD.first(T), x_TMD, head_saved.first(T));
  norm.forward(ctx, y_TD.first(T), v_rstd_T.first(T), v_TD.first(T));
}

void Model::Impl::rebuild(Ctx& ctx, const Config& config, int64_t layer, int64_t next) const {
  const LayerScope scope(ctx, layer);
  get(ctx, layer, next);
  const layers::ChoiceRule replay{true, {}};
  blocks[layer]->forward(ctx, streams(layer + 1), streams(layer), {replay, replay, entry_uses[layer]}, layout,
                         rotary(config, layer));
  release(layer);
}

const std::vector<layers::ParameterList>& Model::units() const { return impl_->units; }
layers::ParameterList Model::site_parameters(int64_t site) const {
  layers::ParameterList list;
  impl_->blocks[site / 2]->collect(list, SiteRange{site, site + 1}.of(site / 2));
  return list;
}
void Model::set_weight_keeper(WeightKeeper* keeper) { impl_->keeper = keeper; }

void Model::Impl::begin_backward(Ctx& ctx, int64_t unit, int64_t next, bool weights_later) {
  get(ctx, unit, next);
  if (keeper) keeper->begin_backward(ctx, unit, GradientKind::kOthers);
  if (weights_later) {
    later[slot].push_back({unit, {}});
    ctx.later = &later[slot].back().work;
  } else if (keeper) {
    keeper->begin_backward(ctx, unit, GradientKind::kOfProducts);
  }
}

void Model::Impl::end_backward(Ctx& ctx, int64_t unit, bool weights_later) {
  ctx.later = nullptr;
  release(unit);
  end_backward(ctx, unit, GradientKind::kOthers);
  if (!weights_later) end_backward(ctx, unit, GradientKind::kOfProducts);
}

// The unit's gradients are those of its micro-batches from here on.
void Model::Impl::end_backward(Ctx& ctx, int64_t unit, GradientKind kind) const {
  // What this micro-batch did not reach: documents too short for a compressed entry, a prediction block without rows.
  if (kind == GradientKind::kOfProducts)
    for (const Parameter* p : unit == WeightKeeper::kEnds ? units.back() : units[unit])
      if (std::exchange(p->grad_is_stale, false)) ctx.ops.fill(ctx.stream, p->grad, 0);
  if (keeper) keeper->end_backward(ctx, unit, kind);
}

void Model::backward_weights(Ctx& ctx) {
  Impl& m = *impl_;
  const std::vector<Impl::UnitWork> later = std::exchange(m.later[m.slot], {});
  // Experts with further rounds compute those again, for which they need their weights.
  const bool needs_values = options_.part.ep_size > 1;
  for (auto products = later.begin(); products != later.end(); ++products) {
    const int64_t unit = products->unit;
    const LayerScope scope(ctx, unit);
    if (needs_values) m.get(ctx, unit, products + 1 == later.end() ? Impl::kUnknown : products[1].unit);
    if (m.keeper) m.keeper->begin_backward(ctx, unit, GradientKind::kOfProducts);
    for (const auto& work : products->work) work(ctx);
    if (needs_values) m.release(unit);
    m.end_backward(ctx, unit, GradientKind::kOfProducts);
  }
}

void Model::complete_gradients(Ctx& ctx) {
  Impl& m = *impl_;
  if (m.keeper) m.keeper->end_step(ctx);
  for (comm::Comm* ranks : {ctx.groups.data, ctx.groups.pp}) {
    if (!ranks) continue;
    for (const View& sum : {m.load_LE, m.entropy_L, m.clamped_L3, m.balance_L, m.indexer_L})
      ranks->all_reduce(ctx.stream, sum.reshape({sum.size()}), comm::Reduce::kSum, {"statistics"});
    const View rows(m.counted_rows_L.data(), DType::kI64, {m.num_blocks()});
    ranks->all_reduce(nullptr, rows, comm::Reduce::kSum, {"statistics"});
  }
}

void Model::weights_updated(Ctx& ctx) {
  if (impl_->keeper) impl_->keeper->values_changed(ctx);
}

void Model::zero_gradients(Ctx& ctx, int64_t num_micro_batches) {
  Impl& m = *impl_;
  if (m.keeper) m.keeper->begin_step(num_micro_batches);
  for (auto& of_slot : m.later) of_slot.clear();  // of a step that was given up
  for (const Parameter* p : parameters_)
    if (p->grad.defined() && !p->grad_piece.defined()) clear_gradient(ctx, *p);
  for (const View& sum : {m.load_LE, m.entropy_L, m.clamped_L3, m.balance_L, m.indexer_L})
    if (sum.defined()) ctx.ops.fill(ctx.stream, sum, 0);
  m.counted_rows_L.assign(m.num_blocks(), 0);
}

void Model::select(int64_t slot, int64_t chunk) {
  Impl& m = *impl_;
  m.selected_chunk = static_cast<size_t>(chunk);
  if (slot == m.slot) return;
  const auto exchange = [&](Impl::Slot& with) {
    std::swap(m.layout, with.layout), std::swap(m.tokens, with.tokens), std::swap(m.targets, with.targets);
    std::swap(m.entry_uses, with.entry_uses);
  };
  exchange(m.parked[m.slot]);
  exchange(m.parked[slot]);
  m.slot = slot;
  m.book->select(TensorKind::kSaved, slot);
}

void Model::begin(Ctx& ctx, const layers::MicroBatch& batch, const Choices* given) {
  Impl& m = *impl_;
  const int64_t T = static_cast<int64_t>(batch.tokens.size());
  CHECK(batch.cu_seqlens.back() == T, batch.cu_seqlens.back(), T);
  const layers::RowCut cut = layers::even_cut(T, options_.part.cp_rank, options_.part.cp_size);
  layers::HostLayout whole = layers::make_layout(batch.cu_seqlens, config_.sliding_window, config_.compress_rates());
  m.tokens = batch.tokens, m.targets = batch.targets;
  m.take_given(config_, given, whole, std::ssize(batch.cu_seqlens) - 1);
  m.layout.upload(ctx.device, ctx.stream, batch, cut_layout(std::move(whole), cut));
  if (m.mtp && is_last_part()) m.mtp->begin(batch, cut);
}

void Model::forward_layers(Ctx& ctx) {
  Impl& m = *impl_;
  const SiteRange sites = m.chunk().sites;
  if (is_first_part())
    m.embedding.forward(ctx, m.streams(0), own_rows<int32_t>(m.tokens, m.layout.cut()), m.layout.token_T);
  for (int64_t l = sites.first_layer(); l < sites.end_layer(); ++l) {
    const LayerScope scope(ctx, l);
    const bool is_mtp_next = is_last_part() && m.mtp;
    m.get(ctx, l, l + 1 < sites.end_layer() || is_mtp_next ? l + 1 : Impl::kUnknown);
    const Block::Choosing choosing = m.choosing(ctx, l);
    m.entry_uses[l] = choosing.use;
    m.blocks[l]->forward(ctx, m.streams(l + 1), m.streams(l), choosing, m.layout, m.rotary(config_, l));
    m.release(l);
    m.add_statistics(ctx, config_, l);
  }
  if (is_last_part()) m.collapse(ctx, m.streams(sites.end_layer()));
}

void Model::forward(Ctx& ctx, const layers::MicroBatch& batch, const Choices* given) {
  begin(ctx, batch, given);
  forward_layers(ctx);
}

View Model::input_streams() const { return impl_->streams(impl_->chunk().sites.first_layer()); }
View Model::output_streams() const { return impl_->streams(impl_->chunk().sites.end_layer()); }
View Model::streams_gradient() const { return impl_->dx_TMD.first(impl_->num_rows()); }
int64_t Model::num_chunks() const { return static_cast<int64_t>(impl_->chunks.size()); }
bool Model::is_first_part() const { return impl_->is_first(impl_->chunk()); }
bool Model::is_last_part() const { return impl_->is_last(impl_->chunk()); }
bool Model::is_first_stage() const { return impl_->has_first(); }
bool Model::is_last_stage() const { return impl_->has_last(); }

namespace {

// The results of a rank's rows become those of all rows.
void join_rows(Ctx& ctx, TokenResults& results, const layers::RowCut& cut) {
  if (cut.size() == 1) return;
  const int64_t num_rows = cut.begin_R.back();
  TokenResults all{std::vector<double>(num_rows), std::vector<int32_t>(num_rows)};
  std::copy(results.logp_T.begin(), results.logp_T.end(), all.logp_T.begin() + cut.begin());
  std::copy(results.best_T.begin(), results.best_T.end(), all.best_T.begin() + cut.begin());
  // Nobody else has the row, so a sum takes over its value.
  comm::Comm& cp = *ctx.groups.cp;
  cp.all_reduce(nullptr, View(all.logp_T.data(), DType::kF64, {num_rows}), comm::Reduce::kSum, {"log-probabilities"});
  cp.all_reduce(nullptr, View(all.best_T.data(), DType::kI32, {num_rows}), comm::Reduce::kSum, {"log-probabilities"});
  results = std::move(all);
}

}  // namespace

TokenResults Model::logprobs(Ctx& ctx, std::span<const double> dlogp_T) {
  Impl& m = *impl_;
  const layers::RowCut& cut = m.layout.cut();
  const int64_t P = m.num_rows();
  TokenResults results;
  m.lm_head.logprobs(ctx, m.y_TD.first(P), own_rows<int32_t>(m.targets, cut), m.lm_saved, results.logp_T,
                     results.best_T, m.known(m.dv_TD, P, own_rows(dlogp_T, cut)));
  join_rows(ctx, results, cut);
  return results;
}

TokenResults Model::mtp_logprobs(Ctx& ctx, std::span<const double> dlogp_R) {
  Impl& m = *impl_;
  CHECK(m.mtp != nullptr);
  TokenResults results;
  const int64_t L = config_.num_hidden_layers, R = m.mtp->num_rows();
  {
    const LayerScope scope(ctx, L);
    m.get(ctx, L, Impl::kUnknown);
    m.mtp->forward(ctx, m.streams(L), m.embedding, m.choosing(ctx, L), config_.sliding_window, m.main_rotary);
    m.release(L);
    m.add_statistics(ctx, config_, L);
  }
  const layers::RowCut& cut = m.mtp->cut();
  m.lm_head.logprobs(ctx, m.mtp->y_RD(), own_rows<int32_t>(m.mtp->batch().targets, cut), m.mtp_lm_saved, results.logp_T,
                     results.best_T, m.known(m.mtp_dv_TD, R, own_rows(dlogp_R, cut)));
  join_rows(ctx, results, cut);
  return results;
}

const layers::MicroBatch& Model::mtp_batch() const {
  CHECK(impl_->mtp != nullptr);
  return impl_->mtp->batch();
}

void Model::logits(Ctx& ctx, int64_t begin, int64_t end, std::vector<double>& logits_TV) {
  impl_->lm_head.logits(ctx, impl_->y_TD.first(impl_->num_rows()), begin, end, logits_TV);
}

void Model::mtp_logits(Ctx& ctx, int64_t begin, int64_t end, std::vector<double>& logits_RV) {
  CHECK(impl_->mtp != nullptr);
  impl_->lm_head.logits(ctx, impl_->mtp->y_RD(), begin, end, logits_RV);
}

void Model::Impl::backward_heads(Ctx& ctx, int64_t num_layers, const LossGradients& gradients, bool weights_later) {
  const int64_t P = num_rows();
  const View streams_grad = dx_TMD.first(P), dy_TD = dv_TD.first(P);
  ctx.ops.fill(ctx.stream, streams_grad, 0);
  // Without rows of its own the block still joins the exchange of experts with ranks that have some.
  const bool is_empty = mtp && mtp->batch().tokens.empty();
  const bool mtp_counts = mtp && (is_empty ? mtp->has_run() : !gradients.mtp_dlogp_R.empty());
  const View dy_RD = mtp_counts ? mtp_dv_TD.first(mtp->num_rows()) : View{};
  if (mtp_counts) lm_head.backward(ctx, dy_RD, mtp->y_RD(), own_rows(gradients.mtp_dlogp_R, mtp->cut()), mtp_lm_saved);
  if (mtp) begin_backward(ctx, num_layers, num_layers - 1, weights_later);
  if (mtp_counts) {
    const LayerScope scope(ctx, num_layers);
    mtp->backward(ctx, streams_grad, embedding, dy_RD, balance_of(num_layers, gradients.balance), main_rotary);
  }
  if (mtp) end_backward(ctx, num_layers, weights_later);
  lm_head.backward(ctx, dy_TD, y_TD.first(P), own_rows(gradients.dlogp_T, layout.cut()), lm_saved);
  norm.backward(ctx, dy_TD, dy_TD, v_TD.first(P), v_rstd_T.first(P));
  head_hyper.backward_pre(ctx, streams_grad, dy_TD, streams(num_layers), head_saved.first(P));
}

int64_t Model::Impl::next_in_backward(int64_t layer, int64_t end) const {
  if (layer == end) return kUnknown;
  const int64_t below = layer - 1, segment = chunk().keep.segment;
  const bool is_top = (below - chunk().sites.first_layer()) % segment == segment - 1;
  return is_top ? below - segment + 1 : below;
}

void Model::backward(Ctx& ctx, const LossGradients& gradients) { backward(ctx, gradients, false); }

void Model::backward_inputs(Ctx& ctx, const LossGradients& gradients) {
  CHECK(options_.part.weights_later);
  backward(ctx, gradients, true);
}

void Model::backward(Ctx& ctx, const LossGradients& gradients, bool weights_later) {
  Impl& m = *impl_;
  const int64_t L = config_.num_hidden_layers;
  CHECK(options_.train && (!is_last_part() || gradients.dlogp_T.size() == m.targets.size()), gradients.dlogp_T.size(),
        m.targets.size());
  if (is_last_part() && m.lowest_trained <= L) m.backward_heads(ctx, L, gradients, weights_later);

  const View dx_TMD = streams_gradient();
  const Impl::Chunk& chunk = m.chunk();
  const int64_t first = chunk.sites.first_layer(), last = chunk.sites.end_layer() - 1, segment = chunk.keep.segment;
  const int64_t end = std::max(first, m.indexer_is_trained ? 0 : std::max<int64_t>(m.lowest_trained, 0));
  for (int64_t l = last; l >= end; --l) {
    const LayerScope scope(ctx, l);
    const bool is_last = l == last;
    const int64_t in_segment = (l - first) % segment;
    if (segment > 1 && in_segment == segment - 1 && !is_last) {
      for (int64_t k = l - segment + 1; k < l; ++k) m.rebuild(ctx, config_, k, k + 1);
    }
    const int64_t next = m.next_in_backward(l, end);
    if (chunk.keep.share_saved && !is_last) m.rebuild(ctx, config_, l, next);
    m.begin_backward(ctx, l, next, weights_later);
    // The indexer's loss reads what forward saved; it leaves dx alone.
    if (m.indexer_is_trained)
      m.blocks[l]->backward_indexer(ctx, m.indexer_L.slice(0, l, l + 1), m.entry_uses[l], gradients.indexer, m.layout,
                                    m.rotary(config_, l));
    if (l >= m.lowest_trained)
      m.blocks[l]->backward(ctx, dx_TMD, m.streams(l), m.entry_uses[l], m.balance_of(l, gradients.balance), m.layout,
                            m.rotary(config_, l));
    m.end_backward(ctx, l, weights_later);
  }
  if (is_first_part()) m.embedding.backward(ctx, dx_TMD, own_rows<int32_t>(m.tokens, m.layout.cut()), m.layout.token_T);
  if (is_first_part() || is_last_part()) m.end_backward(ctx, WeightKeeper::kEnds, false);
}

View Model::streams(int64_t layer) const { return impl_->streams(layer); }

}  // namespace temper::model

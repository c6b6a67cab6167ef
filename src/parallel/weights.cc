#include "parallel/weights.h"

#include <utility>

#include "model/parameter_memory.h"

namespace temper::parallel {
namespace {

using layers::Ctx;
using layers::Parameter;
using model::GradientKind;

// A whole value or gradient with the room behind it: equal pieces, one for each rank.
View all_pieces(const Parameter& p, const View& whole) {
  return {whole.base, whole.dtype, {p.share.size * p.share.piece(p.shape.size())}, whole.offset};
}

View own_piece(const Parameter& p, const View& whole) {
  const int64_t piece = p.share.piece(p.shape.size());
  return all_pieces(p, whole).rows(p.share.rank * piece, (p.share.rank + 1) * piece);
}

GradientKind kind_of(const Parameter& p) {
  return p.grad_by_products ? GradientKind::kOfProducts : GradientKind::kOthers;
}

View flat(const View& view) { return view.reshape({view.size()}); }

}  // namespace

comm::Comm* EqualRanks::of(const Parameter& p) const {
  return model::is_expert(p) ? experts : model::is_slice(p) ? slices : dense;
}

Weights::Weights(model::Model& model, EqualRanks ranks)
    : model_(model), ranks_(ranks), zero_(model.options().part.zero), exact_(model.options().part.exact()) {
  const model::ModelPart& part = model.options().part;
  CHECK(part.share.rank == comm::group_rank(ranks.dense) || zero_ == 0, part.share.rank);
  CHECK(part.slice_share.rank == comm::group_rank(ranks.slices) || zero_ == 0, part.slice_share.rank);
  CHECK(part.expert_share.rank == comm::group_rank(ranks.experts) || zero_ == 0, part.expert_share.rank);
}

void Weights::declare(Book& book) {
  place_U_ = model::unit_places(model_.units(), model_.options().part.overlap);
  for (auto& done_U : done_KU_) done_U.assign(model_.units().size(), 0);
  int64_t num_levels = 0;
  while (model_.options().part.exact_micro_batches >> num_levels > 0) ++num_levels;
  const auto declare_tree = [&](std::vector<View>& levels, const Parameter& p, const char* what) {
    levels.resize(num_levels);
    for (View& level : levels)
      book.declare(&level, TensorKind::kGradient, p.name + what, p.grad.dtype, {p.num_owned()});
  };
  if (!exact_) return;
  for (const Parameter* p : model_.parameters())
    if (p->trainable) declare_tree(trees_[p], *p, ":sums");
  const bool has_both_ends = model_.is_first_stage() && model_.is_last_stage() && model_.options().mtp;
  if (has_both_ends && embedding().trainable) declare_tree(mtp_embedding_, embedding(), ":mtp sums");
}

// The first of the ends of a rank that has it.
const Parameter& Weights::embedding() const { return *model_.units().back().front(); }

void Weights::begin_step(int64_t num_micro_batches) {
  CHECK(num_micro_batches > 0 && under_way_.empty());
  CHECK(!exact_ || num_micro_batches <= model_.options().part.exact_micro_batches, num_micro_batches);
  num_micro_batches_ = num_micro_batches;
  for (auto& done_U : done_KU_) std::fill(done_U.begin(), done_U.end(), 0);
}

const layers::ParameterList& Weights::unit_list(int64_t unit) const {
  return unit == kEnds ? model_.units().back() : model_.units()[unit];
}

// Where the place is still another's this does nothing, and get() asks once more.
void Weights::gather(Ctx& ctx, int64_t unit) {
  if (zero_ < 3 || unit == kEnds) return;
  Values& here = values_[place_of(unit)];
  if (here.use != Use::kFree) return;
  here.use = Use::kComing;
  if (here.unit == unit) return;  // there already, and kept for it
  backend::Stream* stream = this->stream(ctx);
  for (const Parameter* p : unit_list(unit))
    if (p->value_piece.defined())
      ranks_.of(*p)->all_gather(stream, all_pieces(*p, p->value), p->value_piece, {"weights", unit});
  here.unit = unit, here.arrival = ctx.beside ? ctx.beside->mark() : nullptr;
}

void Weights::get(Ctx& ctx, int64_t unit) {
  if (zero_ < 3 || unit == kEnds) return;
  Values& here = values_[place_of(unit)];
  if (here.unit != unit) {
    CHECK(here.use != Use::kInUse, unit, here.unit);
    // Fetched in vain: the stream fills the place again, after that.
    if (here.arrival) wait(ctx, std::exchange(here.arrival, nullptr));
    here.use = Use::kFree;
    gather(ctx, unit);
  }
  CHECK(here.unit == unit, unit, here.unit);
  if (here.arrival) wait(ctx, std::exchange(here.arrival, nullptr));
  here.use = Use::kInUse;
}

void Weights::release(int64_t unit) {
  if (zero_ < 3 || unit == kEnds) return;
  Values& here = values_[place_of(unit)];
  CHECK(here.unit == unit && here.use == Use::kInUse, unit, here.unit);
  here.use = Use::kFree;
}

void Weights::begin_backward(Ctx& ctx, int64_t unit, GradientKind kind) {
  finish_in_place_of(ctx, unit);
  if (zero_ >= 2) {
    Adding& here = adding_[place_of(unit)];
    CHECK(here.num_kinds == 0 || here.unit == unit, unit, here.unit);
    here.unit = unit, ++here.num_kinds;
  }
  for (const Parameter* p : unit_list(unit))
    if (kind_of(*p) == kind && p->grad_piece.defined()) model::clear_gradient(ctx, *p);
}

// What is under way of the unit, or stands where its whole gradients will.
void Weights::finish_in_place_of(Ctx& ctx, int64_t unit) {
  const auto is_in_place = [&](const Reduction& r) {
    if (r.unit == unit) return true;
    return zero_ >= 2 && r.unit != kEnds && unit != kEnds && place_of(r.unit) == place_of(unit);
  };
  std::erase_if(under_way_, [&](const Reduction& r) {
    if (!is_in_place(r)) return false;
    finish(ctx, r);
    return true;
  });
}

bool Weights::is_summed(const Parameter& p, GradientKind kind, bool is_last) const {
  return p.grad.defined() && kind_of(p) == kind && (exact_ || p.grad_piece.defined() || is_last);
}

void Weights::add_ranks(backend::Stream* stream, const Parameter& p, int64_t unit) const {
  comm::Comm* ranks = ranks_.of(p);
  if (comm::group_size(ranks) == 1) return;
  if (p.is_shared()) {
    ranks->reduce_scatter(stream, own_piece(p, p.grad), all_pieces(p, p.grad), {"gradients", unit});
  } else {
    ranks->all_reduce(stream, flat(p.grad), comm::Reduce::kSum, {"gradients", unit});
  }
}

void Weights::end_backward(Ctx& ctx, int64_t unit, GradientKind kind) {
  auto& done_U = done_KU_[static_cast<size_t>(kind)];
  const int64_t micro_batch = done_U[unit == kEnds ? done_U.size() - 1 : unit]++;
  const bool is_last = micro_batch + 1 == num_micro_batches_;
  if (unit != kEnds && zero_ >= 2) --adding_[place_of(unit)].num_kinds;
  const bool is_mtp = unit == model_.config().num_hidden_layers && kind == GradientKind::kOthers;
  if (is_mtp && !mtp_embedding_.empty()) add_mtp_embedding(ctx, unit, micro_batch);
  backend::Stream* stream = this->stream(ctx);
  bool is_any = false;
  for (const Parameter* p : unit_list(unit)) {
    if (!is_summed(*p, kind, is_last)) continue;
    add_ranks(stream, *p, unit);
    if (!ctx.beside) take(ctx, *p, micro_batch);
    is_any = true;
  }
  if (!ctx.beside || !is_any) return;
  under_way_.push_back({unit, kind, micro_batch, ctx.beside->mark()});
  // The ends have no begin of their next micro-batch.
  if (unit == kEnds && !is_last) finish_in_place_of(ctx, unit);
}

// Takes over what the ranks' gradients of a micro-batch have become.
void Weights::finish(Ctx& ctx, const Reduction& reduction) {
  wait(ctx, reduction.done);
  const bool is_last = reduction.micro_batch + 1 == num_micro_batches_;
  for (const Parameter* p : unit_list(reduction.unit))
    if (is_summed(*p, reduction.kind, is_last)) take(ctx, *p, reduction.micro_batch);
}

void Weights::take(Ctx& ctx, const Parameter& p, int64_t micro_batch) {
  if (exact_) {
    take_exact(ctx, p, trees_.at(&p), micro_batch);
  } else if (p.grad_piece.defined() && micro_batch == 0) {
    ctx.ops.copy(ctx.stream, p.grad_piece, own_piece(p, p.grad));
  } else if (p.grad_piece.defined()) {
    ctx.ops.add(ctx.stream, p.grad_piece, own_piece(p, p.grad), 1);
  }
}

// The layers below go on adding to the embedding's gradient, so this waits.
void Weights::add_mtp_embedding(Ctx& ctx, int64_t unit, int64_t micro_batch) {
  add_ranks(stream(ctx), embedding(), unit);
  if (ctx.beside) wait(ctx, ctx.beside->mark());
  take_exact(ctx, embedding(), mtp_embedding_, micro_batch);
}

// Adds a micro-batch's gradient and begins a new one. levels: sums of 2^k micro-batches, as the digits of a binary
// counter.
void Weights::take_exact(Ctx& ctx, const Parameter& p, std::vector<View>& levels, int64_t micro_batch) const {
  if (p.num_owned() > 0) {
    const View sum = flat(p.owned(p.grad));
    size_t level = 0;
    for (; micro_batch >> level & 1; ++level) ctx.ops.add(ctx.stream, sum, levels[level], 1);
    ctx.ops.copy(ctx.stream, levels[level], sum);
  }
  if (!p.grad_piece.defined()) model::clear_gradient(ctx, p);
}

// The sum of all levels, in one of them.
View Weights::total(Ctx& ctx, const std::vector<View>& levels) const {
  size_t lowest = 0;
  while (!(num_micro_batches_ >> lowest & 1)) ++lowest;
  for (size_t level = lowest + 1; level < levels.size(); ++level)
    if (num_micro_batches_ >> level & 1) ctx.ops.add(ctx.stream, levels[lowest], levels[level], 1);
  return levels[lowest];
}

void Weights::end_step(Ctx& ctx) {
  for (const Reduction& reduction : std::exchange(under_way_, {})) finish(ctx, reduction);
  for (auto& [p, levels] : trees_) {
    if (p->num_owned() == 0) continue;
    p->grad_is_stale = false;
    ctx.ops.copy(ctx.stream, flat(p->owned_grad()), total(ctx, levels));
  }
  add_embeddings(ctx);
}

void Weights::add_embeddings(Ctx& ctx) const {
  if (!ranks_.embedding && mtp_embedding_.empty()) return;
  if (!embedding().trainable || embedding().num_owned() == 0) return;
  const View grad = flat(embedding().owned_grad());
  if (!mtp_embedding_.empty()) ctx.ops.add(ctx.stream, grad, total(ctx, mtp_embedding_), 1);
  if (ranks_.embedding)
    ranks_.embedding->all_reduce(ctx.stream, grad, comm::Reduce::kSum, {"gradient of the embedding"});
}

void Weights::values_changed(Ctx& ctx) {
  for (Values& here : values_) {
    CHECK(here.use != Use::kInUse, here.unit);
    if (here.arrival) wait(ctx, here.arrival);
    here = {};
  }
  backend::Stream* stream = this->stream(ctx);
  for (const Parameter* p : model_.parameters())
    if (p->is_shared() && !p->value_piece.defined())
      ranks_.of(*p)->all_gather(stream, all_pieces(*p, p->value), own_piece(*p, p->value), {"updated weights"});
  if (ctx.beside) wait(ctx, ctx.beside->mark());
}

}  // namespace temper::parallel

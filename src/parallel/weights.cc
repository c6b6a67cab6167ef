#include "parallel/weights.h"

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
  CHECK(num_micro_batches > 0);
  CHECK(!exact_ || num_micro_batches <= model_.options().part.exact_micro_batches, num_micro_batches);
  num_micro_batches_ = num_micro_batches;
  for (auto& done_U : done_KU_) std::fill(done_U.begin(), done_U.end(), 0);
}

const layers::ParameterList& Weights::unit_list(int64_t unit) const {
  return unit == kEnds ? model_.units().back() : model_.units()[unit];
}

void Weights::gather(Ctx& ctx, int64_t unit) {
  if (zero_ < 3 || unit == kEnds || unit == resident_unit_) return;
  for (const Parameter* p : unit_list(unit))
    if (p->value_piece.defined())
      ranks_.of(*p)->all_gather(ctx.stream, all_pieces(*p, p->value), p->value_piece, {"weights", unit});
  resident_unit_ = unit;
}

void Weights::begin_backward(Ctx& ctx, int64_t unit, GradientKind kind) {
  for (const Parameter* p : unit_list(unit))
    if (kind_of(*p) == kind && p->grad_piece.defined()) model::clear_gradient(ctx, *p);
}

void Weights::add_ranks(Ctx& ctx, const Parameter& p, int64_t unit) const {
  comm::Comm* ranks = ranks_.of(p);
  if (comm::group_size(ranks) == 1) return;
  if (p.is_shared()) {
    ranks->reduce_scatter(ctx.stream, own_piece(p, p.grad), all_pieces(p, p.grad), {"gradients", unit});
  } else {
    ranks->all_reduce(ctx.stream, flat(p.grad), comm::Reduce::kSum, {"gradients", unit});
  }
}

void Weights::end_backward(Ctx& ctx, int64_t unit, GradientKind kind) {
  auto& done_U = done_KU_[static_cast<size_t>(kind)];
  const int64_t micro_batch = done_U[unit == kEnds ? done_U.size() - 1 : unit]++;
  const bool is_last = micro_batch + 1 == num_micro_batches_;
  const bool is_mtp = unit == model_.config().num_hidden_layers && kind == GradientKind::kOthers;
  if (is_mtp && !mtp_embedding_.empty()) take(ctx, embedding(), unit, mtp_embedding_, micro_batch);
  for (const Parameter* p : unit_list(unit)) {
    if (!p->grad.defined() || kind_of(*p) != kind) continue;
    if (exact_) {
      take(ctx, *p, unit, trees_.at(p), micro_batch);
    } else if (p->grad_piece.defined()) {
      add_ranks(ctx, *p, unit);
      if (micro_batch == 0) {
        ctx.ops.copy(ctx.stream, p->grad_piece, own_piece(*p, p->grad));
      } else {
        ctx.ops.add(ctx.stream, p->grad_piece, own_piece(*p, p->grad), 1);
      }
    } else if (is_last) {
      add_ranks(ctx, *p, unit);
    }
  }
}

// Adds the ranks' gradients of a micro-batch and begins a new one. levels: sums of 2^k micro-batches, as the digits of
// a binary counter.
void Weights::take(Ctx& ctx, const Parameter& p, int64_t unit, std::vector<View>& levels, int64_t micro_batch) const {
  add_ranks(ctx, p, unit);
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
  resident_unit_ = kNobody;
  for (const Parameter* p : model_.parameters())
    if (p->is_shared() && !p->value_piece.defined())
      ranks_.of(*p)->all_gather(ctx.stream, all_pieces(*p, p->value), own_piece(*p, p->value), {"updated weights"});
}

}  // namespace temper::parallel

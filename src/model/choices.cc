// Experts and index entries: chosen, given and recorded; what the experts did, and their balance.
#include <algorithm>

#include "base/error.h"
#include "model/model_impl.h"

namespace temper::model {
namespace {

using layers::Ctx;
using layers::EntryUse;

void check_experts(const std::vector<int32_t>& expert_TK, int64_t layer, int64_t num_rows, int64_t K, int64_t E) {
  if (expert_TK.empty()) return;
  if (static_cast<int64_t>(expert_TK.size()) != num_rows * K)
    fail(ErrorCode::kInvalidArgument, "given experts of layer {}: {} values for {} tokens with {} experts each", layer,
         expert_TK.size(), num_rows, K);
  for (int64_t t = 0; t < num_rows; ++t) {
    if (expert_TK[t * K] == -1) continue;
    for (int64_t k = 0; k < K; ++k) {
      const int32_t expert = expert_TK[t * K + k];
      if (expert >= 0 && expert < E) continue;
      fail(ErrorCode::kInvalidArgument, "given experts of layer {}, token {}: {}; expected {} experts from 0 to {}",
           layer, t, expert, K, E - 1);
    }
  }
}

void check_selected(const std::vector<int32_t>& selected_TA, int64_t layer, const layers::EntryLayout& entries,
                    int64_t A) {
  if (selected_TA.empty()) return;
  const auto num_rows = static_cast<int64_t>(entries.entry_count_T.size());
  if (static_cast<int64_t>(selected_TA.size()) != num_rows * A)
    fail(ErrorCode::kInvalidArgument, "given entries of layer {}: {} values for {} tokens with {} each", layer,
         selected_TA.size(), num_rows, A);
  for (int64_t t = 0; t < num_rows; ++t) {
    for (int64_t a = 0; a < A; ++a) {
      const int32_t entry = selected_TA[t * A + a], before = a > 0 ? selected_TA[t * A + a - 1] : -1;
      const bool unused = entry == -1;
      if (unused || (entry > before && (a == 0 || before >= 0) && entry < entries.entry_count_T[t])) continue;
      fail(ErrorCode::kInvalidArgument,
           "given entries of layer {}, token {}: {} after {}; expected ascending entries below {}, the number that the "
           "token sees, then -1",
           layer, t, entry, before, entries.entry_count_T[t]);
    }
  }
}

}  // namespace

// Of all rows, whatever this rank has of them, so that all ranks find the same.
void Model::Impl::take_given(const Config& config, const Choices* choices, const layers::HostLayout& whole,
                             int64_t num_documents) {
  given.reset();
  if (!choices) return;
  if (static_cast<int64_t>(choices->layers.size()) != num_blocks())
    fail(ErrorCode::kInvalidArgument, "choices were given for {} layers; the model has {}", choices->layers.size(),
         num_blocks());
  Given& g = given.emplace(Given{*choices, {}});
  const int64_t T = std::ssize(tokens);
  for (int64_t l = 0; l < num_blocks(); ++l) {
    const Choices::Layer& layer = g.choices.layers[l];
    Given::Complete& complete = g.complete_L.emplace_back();
    const bool is_mtp = l == config.num_hidden_layers;
    const int64_t num_rows = is_mtp ? T - num_documents : T, K = config.num_experts_per_tok;
    check_experts(layer.expert_TK, l, num_rows, K, config.n_routed_experts);
    for (size_t i = 0; i < layer.expert_TK.size(); i += K) complete.experts &= layer.expert_TK[i] >= 0;
    const bool chooses = !is_mtp && config.layer_types[l] == AttentionKind::kCsa;
    if (!chooses && !layer.selected_TA.empty())
      fail(ErrorCode::kInvalidArgument, "index entries were given for layer {}, which has no indexer", l);
    for (const layers::EntryLayout& entries : whole.entries) {
      if (layer.selected_TA.empty() || entries.rate != config.csa_rate) continue;
      check_selected(layer.selected_TA, l, entries, config.index_topk);
      for (int64_t t = 0; t < num_rows; ++t)
        complete.entries &= layer.selected_TA[t * config.index_topk] >= 0 || entries.entry_count_T[t] == 0;
    }
  }
}

namespace {

// Rows [begin, end) of what is given, of X values each. Those that are given whole go to where the layer keeps its
// choices; where some are to be computed, beside them.
layers::ChoiceRule place(Ctx& ctx, const std::vector<int32_t>& values, int64_t begin, int64_t end, bool is_complete,
                         View chosen_X, View beside_X) {
  if (values.empty()) return {};
  const View to = is_complete ? chosen_X : beside_X.first(chosen_X.dim(0));
  CHECK(to.dim(0) == end - begin, to.dim(0), begin, end);
  ctx.device.copy_to_device(ctx.stream, to, values.data() + begin * to.dim(1));
  return is_complete ? layers::ChoiceRule{true, {}} : layers::ChoiceRule{false, to};
}

}  // namespace

Block::Choosing Model::Impl::choosing(Ctx& ctx, int64_t layer) {
  Block::Choosing out;
  out.use = attends_to_all ? EntryUse::kAll : EntryUse::kBest;
  if (!given) return out;
  const Choices::Layer& values = given->choices.layers[layer];
  const Given::Complete complete = given->complete_L[layer];
  const layers::RowCut& cut = group_cut(layer);
  const int64_t R = cut.num_rows(), begin = cut.begin();
  const Block::Choices chosen = block(layer).choices(R);
  if (here(layer).experts)
    out.experts = place(ctx, values.expert_TK, begin + tensor_part.begin(R), begin + tensor_part.end(R),
                        complete.experts, chosen.expert_TK, given_expert_TK);
  if (here(layer).attention && !values.selected_TA.empty()) {
    out.entries =
        place(ctx, values.selected_TA, begin, begin + R, complete.entries, chosen.selected_TA, given_selected_TA);
    if (!attends_to_all) out.use = EntryUse::kGiven;
  }
  return out;
}

namespace {

// The rows [begin, begin + n) of somebody else are 0 here, so a sum over ranks puts all rows together.
std::vector<int32_t> of_all_rows(Ctx& ctx, const View& own_X, int64_t begin, int64_t num_rows,
                                 std::initializer_list<comm::Comm*> ranks) {
  const int64_t X = own_X.dim(1);
  std::vector<int32_t> all(num_rows * X);
  ctx.device.copy_to_host(ctx.stream, all.data() + begin * X, own_X);
  for (comm::Comm* group : ranks)
    if (group)
      group->all_reduce(nullptr, View(all.data(), DType::kI32, {num_rows * X}), comm::Reduce::kSum, {"choices"});
  return all;
}

}  // namespace

Choices Model::choices(Ctx& ctx) const {
  Impl& m = *impl_;
  Choices out;
  for (int64_t l = 0; l < m.num_blocks(); ++l) {
    auto& layer = out.layers.emplace_back();
    if (!m.here(l).any()) continue;
    const bool is_mtp = l == config_.num_hidden_layers;
    const layers::RowCut& cut = m.group_cut(l);
    const int64_t R = cut.num_rows(), num_rows = cut.begin_R.back();
    const Block::Choices chosen = m.block(l).choices(R);
    if (m.here(l).experts)
      layer.expert_TK = of_all_rows(ctx, chosen.expert_TK, cut.begin() + m.tensor_part.begin(R), num_rows,
                                    {ctx.groups.cp, ctx.groups.tp});
    if (!is_mtp && m.here(l).attention && m.block(l).attention().is_choosing(m.layout, m.entry_uses[l]))
      layer.selected_TA = of_all_rows(ctx, chosen.selected_TA, cut.begin(), num_rows, {ctx.groups.cp});
  }
  return out;
}

namespace {

std::vector<double> fetch_doubles(Ctx& ctx, const View& view) {
  if (view.dtype == DType::kF64) {
    std::vector<double> values(view.size());
    ctx.device.copy_to_host(ctx.stream, values.data(), view);
    return values;
  }
  std::vector<float> values(view.size());
  ctx.device.copy_to_host(ctx.stream, values.data(), view);
  return {values.begin(), values.end()};
}

}  // namespace

namespace {

double bias_range(Ctx& ctx, const layers::Moe& moe) {
  const std::vector<double> bias_E = fetch_doubles(ctx, moe.bias_E());
  const auto [least, most] = std::minmax_element(bias_E.begin(), bias_E.end());
  return *most - *least;
}

}  // namespace

void Model::Impl::add_statistics(Ctx& ctx, const Config& config, int64_t layer) {
  if (!load_LE.defined() || !here(layer).experts) return;
  Block& b = block(layer);
  layers::Moe::Statistics to{{}, {}, clamped_L3.slice(0, layer, layer + 1).reshape({3})};
  if (routes_by_score(config, layer)) to.load_E = load_E(layer), to.entropy_1 = entropy_L.slice(0, layer, layer + 1);
  const View expert_TK = b.choices(group_rows(layer)).expert_TK;
  b.moe().add_statistics(ctx, to, b.moe().first(b.saved().moe, expert_TK.dim(0)), expert_TK);
  counted_rows_L[layer] += expert_TK.dim(0);
}

std::vector<MoeStatistics> Model::moe_statistics(Ctx& ctx) const {
  Impl& m = *impl_;
  const int64_t L = m.num_blocks(), E = config_.n_routed_experts;
  std::vector<int32_t> load_LE(L * E);
  std::vector<int64_t> clamped_L3(L * 3);
  ctx.device.copy_to_host(ctx.stream, load_LE.data(), m.load_LE);
  ctx.device.copy_to_host(ctx.stream, clamped_L3.data(), m.clamped_L3);
  const std::vector<double> entropy_L = fetch_doubles(ctx, m.entropy_L);
  std::vector<MoeStatistics> out(L);
  for (int64_t l = 0; l < L; ++l) {
    MoeStatistics& s = out[l];
    const int64_t rows = m.counted_rows_L[l];
    if (Impl::routes_by_score(config_, l)) {
      s.load_E.assign(load_LE.begin() + l * E, load_LE.begin() + (l + 1) * E);
      s.entropy = rows > 0 ? entropy_L[l] / static_cast<double>(rows) : 0;
      if (m.here(l).experts) s.bias_range = bias_range(ctx, m.block(l).moe());
    }
    s.num_gate_high = clamped_L3[3 * l], s.num_linear_high = clamped_L3[3 * l + 1];
    s.num_linear_low = clamped_L3[3 * l + 2];
    s.num_elements = rows * (config_.num_experts_per_tok + 1) * config_.moe_intermediate_size;
  }
  if (comm::Comm* pp = ctx.groups.pp) {
    std::vector<double> ranges(L);
    for (int64_t l = 0; l < L; ++l) ranges[l] = out[l].bias_range;
    pp->all_reduce(nullptr, View(ranges.data(), DType::kF64, {L}), comm::Reduce::kSum, {"bias ranges"});
    for (int64_t l = 0; l < L; ++l) out[l].bias_range = ranges[l];
  }
  return out;
}

bool Model::runs_experts(int64_t block) const { return impl_->here(block).experts; }

void Model::place_experts(Ctx& ctx, int64_t block, std::span<const int32_t> position_E) {
  impl_->block(block).moe().place_experts(ctx, position_E);
}

void Model::update_router_biases(Ctx& ctx, double speed) {
  Impl& m = *impl_;
  for (int64_t l = 0; l < m.num_blocks(); ++l)
    if (m.here(l).experts && Impl::routes_by_score(config_, l)) m.block(l).moe().update_bias(ctx, m.load_E(l), speed);
}

AuxiliaryLosses Model::auxiliary_losses(Ctx& ctx) const {
  return {fetch_doubles(ctx, impl_->balance_L), fetch_doubles(ctx, impl_->indexer_L)};
}

}  // namespace temper::model

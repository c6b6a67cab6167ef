#include "train/expert_placement.h"

#include <algorithm>
#include <numeric>

#include "model/parameter_memory.h"

namespace temper::train {
namespace {

constexpr double kDecay = 0.9;     // of the moving average
constexpr double kNotably = 0.05;  // of the mean load, by which the busiest rank must get less

std::vector<int32_t> numbers(int64_t E) {
  std::vector<int32_t> order(static_cast<size_t>(E));
  std::iota(order.begin(), order.end(), 0);
  return order;
}

// Block of an expert tensor, the prediction block behind the main layers.
int64_t block_of(const layers::Parameter& p, int64_t num_layers) {
  constexpr std::string_view kLayers = "model.layers.";
  return p.name.starts_with(kLayers) ? std::stoll(p.name.substr(kLayers.size())) : num_layers;
}

// Elements of one expert, [begin, end) of them.
struct Stretch {
  int64_t begin, end;
  bool empty() const { return begin >= end; }
};

// What a rank owns of the experts at its places.
struct Owner {
  int64_t ep_rank, experts_per_rank, expert_size;
  layers::Share share;

  // Of the expert at a place; and where that stands in what the rank owns.
  Stretch owned(int64_t place) const {
    if (place / experts_per_rank != ep_rank) return {0, 0};
    const int64_t n = experts_per_rank * expert_size, first = place % experts_per_rank * expert_size;
    const int64_t begin = share.begin(n), end = begin + share.count(n);
    return {std::clamp<int64_t>(begin - first, 0, expert_size), std::clamp<int64_t>(end - first, 0, expert_size)};
  }
  int64_t offset(int64_t place, int64_t element) const {
    return place % experts_per_rank * expert_size + element - share.begin(experts_per_rank * expert_size);
  }
};

std::vector<int32_t> places(const std::vector<int32_t>& order) {
  std::vector<int32_t> place(order.size());
  for (size_t at = 0; at < order.size(); ++at) place[order[at]] = static_cast<int32_t>(at);
  return place;
}

Stretch both(const Stretch& a, const Stretch& b) { return {std::max(a.begin, b.begin), std::min(a.end, b.end)}; }

}  // namespace

std::vector<int32_t> deal_experts(std::span<const double> load_E, int64_t num_ranks) {
  const auto E = static_cast<int64_t>(load_E.size());
  CHECK(E % num_ranks == 0, E, num_ranks);
  std::vector<int32_t> heaviest = numbers(E);
  std::stable_sort(heaviest.begin(), heaviest.end(), [&](int32_t a, int32_t b) { return load_E[a] > load_E[b]; });
  std::vector<std::vector<int32_t>> experts_R(num_ranks);
  std::vector<double> load_R(num_ranks, 0.0);
  for (const int32_t expert : heaviest) {
    int64_t least = -1;
    for (int64_t r = 0; r < num_ranks; ++r)
      if (static_cast<int64_t>(experts_R[r].size()) < E / num_ranks && (least < 0 || load_R[r] < load_R[least]))
        least = r;
    experts_R[least].push_back(expert), load_R[least] += load_E[expert];
  }
  std::vector<int32_t> order;
  for (std::vector<int32_t>& experts : experts_R) {
    std::sort(experts.begin(), experts.end());
    order.insert(order.end(), experts.begin(), experts.end());
  }
  return order;
}

double placement_imbalance(std::span<const double> load_E, std::span<const int32_t> expert_at_E, int64_t num_ranks) {
  const size_t of_rank = expert_at_E.size() / static_cast<size_t>(num_ranks);
  double total = 0, most = 0;
  for (size_t first = 0; first < expert_at_E.size(); first += of_rank) {
    double load = 0;
    for (size_t at = first; at < first + of_rank; ++at) load += load_E[expert_at_E[at]];
    total += load, most = std::max(most, load);
  }
  return total > 0 ? most * static_cast<double>(num_ranks) / total - 1 : 0;
}

ExpertPlacement::ExpertPlacement(Session& session, const parallel::Ranks& ranks)
    : session_(session), ranks_(ranks), num_experts_(session.model().config().n_routed_experts) {
  const model::Model& model = session.model();
  num_blocks_ = model.config().num_hidden_layers + (model.options().mtp ? 1 : 0);
  order_L_.assign(num_blocks_, numbers(num_experts_));
  dealt_L_ = order_L_;
  average_LE_.assign(num_blocks_, {});
}

void ExpertPlacement::count(std::span<const model::MoeStatistics> moe_L) {
  double sum = 0;
  int64_t num_layers = 0;
  for (size_t l = 0; l < moe_L.size(); ++l) {
    const std::vector<double> load_E(moe_L[l].load_E.begin(), moe_L[l].load_E.end());
    if (load_E.empty()) continue;
    sum += placement_imbalance(load_E, order_L_[l], ranks_.layout.ep), ++num_layers;
    if (average_LE_[l].empty()) average_LE_[l] = load_E;
    for (int64_t e = 0; e < num_experts_; ++e)
      average_LE_[l][e] = kDecay * average_LE_[l][e] + (1 - kDecay) * load_E[e];
  }
  imbalance_ = num_layers > 0 ? sum / static_cast<double>(num_layers) : 0;
}

ExpertPlacement::Dealt ExpertPlacement::deal() {
  Dealt dealt;
  std::vector<Order> to_L = order_L_;
  int64_t num_counted = 0;
  for (int64_t l = 0; l < num_blocks_; ++l) {
    if (average_LE_[l].empty()) continue;
    Order order = deal_experts(average_LE_[l], ranks_.layout.ep);
    const double before = placement_imbalance(average_LE_[l], order_L_[l], ranks_.layout.ep);
    const double after = placement_imbalance(average_LE_[l], order, ranks_.layout.ep);
    const bool is_better = after + kNotably < before;
    if (is_better) to_L[l] = std::move(order), ++dealt.num_layers;
    ++num_counted, dealt.before += before, dealt.after += is_better ? after : before;
  }
  if (num_counted > 0)
    dealt.before /= static_cast<double>(num_counted), dealt.after /= static_cast<double>(num_counted);
  dealt_L_ = to_L;
  move(to_L);
  return dealt;
}

void ExpertPlacement::put_in_order() { move(std::vector<Order>(num_blocks_, numbers(num_experts_))); }
void ExpertPlacement::put_back() { move(dealt_L_); }

void ExpertPlacement::forget() {
  for (int64_t l = 0; l < num_blocks_; ++l) {
    if (order_L_[l] == numbers(num_experts_)) continue;
    order_L_[l] = numbers(num_experts_);
    tell_model(l);
  }
  dealt_L_ = order_L_;
}

void ExpertPlacement::tell_model(int64_t block) {
  model::Model& model = session_.model();
  if (!model.runs_experts(block)) return;
  model.place_experts(session_.ctx(), block, places(order_L_[block]));
  for (layers::Parameter* p : model.parameters())
    if (model::is_expert(*p) && block_of(*p, model.config().num_hidden_layers) == block) p->expert_at = order_L_[block];
}

void ExpertPlacement::move(const std::vector<Order>& to_L) {
  if (to_L == order_L_) return;
  for (const layers::Parameter* p : session_.model().parameters()) {
    if (!model::is_expert(*p)) continue;
    const int64_t block = block_of(*p, session_.model().config().num_hidden_layers);
    const Order &from = order_L_[block], &to = to_L[block];
    if (from == to) continue;
    for (const View& mine : {p->master, p->m, p->v})
      if (mine.defined()) move_tensor(*p, mine, from, to);
    if (!p->master.defined()) move_tensor(*p, p->value, from, to);
  }
  for (int64_t l = 0; l < num_blocks_; ++l) {
    if (order_L_[l] == to_L[l]) continue;
    order_L_[l] = to_L[l];
    tell_model(l);
  }
  session_.model().refresh_values(session_.ctx());
}

// Ranks that share the update own pieces of all the experts of a rank, so that an element may go to any rank of the
// stage; where nothing is shared, ranks with equal experts do alike.
void ExpertPlacement::move_tensor(const layers::Parameter& p, View mine, const Order& from, const Order& to) const {
  layers::Ctx& ctx = session_.ctx();
  const int64_t ep = ranks_.layout.ep, experts_per_rank = num_experts_ / ep;
  comm::Comm& group = p.is_shared() ? *ranks_.data : *ranks_.ep;
  const auto owner = [&](int64_t rank) {
    return Owner{rank % ep, experts_per_rank, p.shape.size() / experts_per_rank, {rank / ep, p.share.size}};
  };
  const Owner me = owner(group.rank());
  const std::vector<int32_t> from_place = places(from), to_place = places(to);
  const int64_t element_bytes = dtype_bytes(mine.dtype);
  const View flat = mine.reshape({mine.size()});
  std::vector<std::byte> sent(mine.size() * element_bytes), received(mine.size() * element_bytes);
  std::vector<int64_t> num_sent, num_received;
  int64_t at = 0;
  for (int64_t rank = 0; rank < group.size(); ++rank) {
    const int64_t first = at;
    for (int64_t x = 0; x < num_experts_; ++x) {
      const Stretch s = both(me.owned(from_place[x]), owner(rank).owned(to_place[x]));
      if (s.empty()) continue;
      const int64_t offset = me.offset(from_place[x], s.begin), count = s.end - s.begin;
      ctx.device.copy_to_host(ctx.stream, sent.data() + at * element_bytes, flat.rows(offset, offset + count));
      at += count;
    }
    num_sent.push_back(at - first);
  }
  CHECK(at == mine.size(), p.name, at, mine.size());
  for (int64_t rank = 0; rank < group.size(); ++rank) {
    num_received.push_back(0);
    for (int64_t x = 0; x < num_experts_; ++x) {
      const Stretch s = both(owner(rank).owned(from_place[x]), me.owned(to_place[x]));
      if (!s.empty()) num_received.back() += s.end - s.begin;
    }
  }
  group.all_to_all_v(nullptr, View(received.data(), mine.dtype, {mine.size()}), num_received,
                     View(sent.data(), mine.dtype, {mine.size()}), num_sent, {"experts that move"});
  at = 0;
  for (int64_t rank = 0; rank < group.size(); ++rank) {
    for (int64_t x = 0; x < num_experts_; ++x) {
      const Stretch s = both(owner(rank).owned(from_place[x]), me.owned(to_place[x]));
      if (s.empty()) continue;
      const int64_t offset = me.offset(to_place[x], s.begin), count = s.end - s.begin;
      ctx.device.copy_to_device(ctx.stream, flat.rows(offset, offset + count), received.data() + at * element_bytes);
      at += count;
    }
  }
}

}  // namespace temper::train

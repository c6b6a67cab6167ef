#include "plan/layout_traffic.h"

#include <algorithm>

namespace temper::plan {
namespace {

double others(int64_t num_ranks) { return static_cast<double>(num_ranks - 1) / static_cast<double>(num_ranks); }

double bytes_of(int64_t rows, int64_t width, double dtype_bytes) {
  return static_cast<double>(rows) * static_cast<double>(width) * dtype_bytes;
}

// Rows that a rank sends to those behind it, which need them.
int64_t rows_sent(const layers::RowCut& cut, const layers::History& needed_R) {
  int64_t sum = 0;
  for (int64_t reader = cut.rank + 1; reader < cut.size(); ++reader)
    sum += std::max<int64_t>(0, cut.end() - std::max(cut.begin(), cut.begin_R[reader] - needed_R[reader]));
  return sum;
}

}  // namespace

void Messages::gather(double all_bytes, int64_t num_ranks) {
  if (num_ranks == 1 || all_bytes == 0) return;
  calls += 1, bytes += all_bytes, sent += all_bytes * others(num_ranks);
}

void Messages::all_reduce(double num_bytes, int64_t num_ranks) {
  if (num_ranks == 1) return;
  calls += 1, bytes += num_bytes, sent += 2 * num_bytes * others(num_ranks);
}

void Messages::exchange(double from_bytes, double to_bytes, int64_t num_ranks) {
  if (num_ranks == 1) return;
  calls += 1, bytes += from_bytes + to_bytes, sent += from_bytes * others(num_ranks);
  moved += 2 * (from_bytes + to_bytes);
}

void Messages::pass(double sent_bytes, double received_bytes) {
  if (sent_bytes + received_bytes == 0) return;
  calls += 1, bytes += sent_bytes + received_bytes, sent += std::max(sent_bytes, received_bytes);
}

void Messages::add(const Messages& other, double times) {
  calls += times * other.calls, bytes += times * other.bytes;
  sent += times * other.sent, moved += times * other.moved;
}

void PassTraffic::add(const PassTraffic& other, double times) {
  cp.add(other.cp, times), tp.add(other.tp, times), ep.add(other.ep, times);
}

void Traffic::add(const Traffic& other) {
  forward.add(other.forward), rebuilt.add(other.rebuilt), backward.add(other.backward);
}

CutRow::CutRow(const DryRunRequest& request, int64_t num_ranks) {
  const layers::MicroBatch row = full_row(request);
  const layers::HostLayout whole =
      layers::make_layout(row.cu_seqlens, request.config.sliding_window, request.config.compress_rates());
  for (int64_t rank = 0; rank < num_ranks; ++rank) {
    const layers::RowCut cut = layers::even_cut(request.options.max_tokens, rank, num_ranks);
    shard_R_.push_back(layers::cut_layout(whole, cut));
    num_targets_R_.push_back(std::count_if(row.targets.begin() + cut.begin(), row.targets.begin() + cut.end(),
                                           [](int32_t target) { return target >= 0; }));
  }
}

double CutRow::attention_flops(const model::Config& c, model::AttentionKind kind, int64_t cp_rank) const {
  const bool is_csa = kind == model::AttentionKind::kCsa;
  const int64_t rate = is_csa ? c.csa_rate : kind == model::AttentionKind::kHca ? c.hca_rate : 0;
  double pairs = of(cp_rank).num_window_pairs, scored = 0;
  for (const layers::EntryLayout& entries : of(cp_rank).entries) {
    if (entries.rate != rate) continue;
    pairs += count_entry_pairs(entries, is_csa ? c.index_topk : entries.max_count);
    if (is_csa && entries.max_count > c.index_topk) scored = count_entry_pairs(entries, entries.max_count);
  }
  return 4 * static_cast<double>(c.num_attention_heads * c.head_dim) * pairs +
         2 * static_cast<double>(c.index_n_heads * c.index_head_dim) * scored;
}

LayoutTraffic::LayoutTraffic(const DryRunRequest& request, const parallel::Layout& layout, const CutRow& row,
                             int64_t cp_rank, int64_t tp_rank)
    : request_(request),
      layout_(layout),
      row_(row),
      shard_(row.of(cp_rank)),
      part_{tp_rank, layout.tp},
      T_(shard_.cut.num_rows()),
      P_(part_.end(T_) - part_.begin(T_)),
      A_(static_cast<double>(dtype_bytes(layers::act_dtype(request.options.precision)))),
      C_(static_cast<double>(dtype_bytes(layers::acc_dtype(request.options.precision)))) {}

// A rank's columns of all rows become all columns of its rows, or the other way round.
Messages LayoutTraffic::columns_to_rows(int64_t columns, double dtype_bytes) const {
  Messages m;
  m.exchange(bytes_of(T_, columns, dtype_bytes), bytes_of(part_.size * P_, columns, dtype_bytes), part_.size);
  return m;
}

// Rows before the own ones, of width values: activations, or, of windows, what is accumulated; their gradients the
// other way round.
void LayoutTraffic::add_history(Traffic& to, const layers::History& needed_R, int64_t width, bool of_windows) const {
  const int64_t sent = rows_sent(shard_.cut, needed_R), received = needed_R[shard_.cut.rank];
  const double there = of_windows ? C_ : A_, back = of_windows ? A_ : C_;
  to.forward.cp.pass(bytes_of(sent, width, there), bytes_of(received, width, there));
  to.backward.cp.pass(bytes_of(received, width, back), bytes_of(sent, width, back));
}

// A compressor: its projections (Z wide), windows and entries.
void LayoutTraffic::add_entries(Traffic& to, const layers::EntryLayout& entries, int64_t width, int64_t Z,
                                bool is_csa) const {
  for (int i = 0; i < 2; ++i) {  // values and gates
    to.forward.tp.gather(bytes_of(part_.padded(T_), Z, C_), layout_.tp);
    to.backward.tp.gather(bytes_of(part_.padded(T_), Z, A_), layout_.tp);
    if (layout_.cp > 1) add_history(to, is_csa ? entries.history_R : entries.current_history_R, Z, true);
  }
  const int64_t room = *std::max_element(entries.count_R.begin(), entries.count_R.end());
  to.forward.cp.gather(bytes_of(layout_.cp * room, width, A_), layout_.cp);
  to.backward.cp.gather(bytes_of(layout_.cp * room, width, C_), layout_.cp);
}

Traffic LayoutTraffic::attention(int64_t layer) const {
  const model::Config& c = request_.config;
  const int64_t L = c.num_hidden_layers, N = c.num_attention_heads, H = c.head_dim, padded = part_.padded(T_);
  const auto kind = layer == L ? model::AttentionKind::kSliding : c.layer_types[layer];
  const Messages groups = columns_to_rows(c.o_groups * c.o_lora_rank / layout_.tp, A_);
  Traffic t;
  for (const int64_t width : {c.q_lora_rank, H}) {
    t.forward.tp.gather(bytes_of(padded, width, A_), layout_.tp);
    t.backward.tp.gather(bytes_of(padded, width, C_), layout_.tp);
  }
  t.forward.tp.add(groups), t.backward.tp.add(groups);
  if (layout_.cp > 1) add_history(t, shard_.history_R, H, false);
  if (layer == L && layout_.tp > 1) {  // rows of the main streams, nearly all of which have their owner already
    const double rows = 2 * bytes_of(P_, c.hc_mult * c.hidden_size, 1);
    t.forward.tp.bytes += rows * A_, t.backward.tp.bytes += rows * C_;
  }
  const bool is_csa = kind == model::AttentionKind::kCsa;
  bool chooses = false;
  Traffic keys;  // of the indexer
  for (const layers::EntryLayout& entries : shard_.entries) {
    if (entries.rate != (layer == L ? 0 : c.compress_rate(layer)) || entries.num_entries() == 0) continue;
    add_entries(t, entries, H, is_csa ? 2 * H : H, is_csa);
    chooses = is_csa && entries.max_count > c.index_topk && request_.options.indexer != model::IndexerUse::kWarmUp;
    if (is_csa) add_entries(keys, entries, c.index_head_dim, 2 * c.index_head_dim, true);
  }
  t.rebuilt = t.forward;
  if (chooses) {
    t.forward.add(keys.forward);
    t.forward.tp.gather(bytes_of(padded, c.index_topk, 4), layout_.tp);
  }
  if (is_csa && request_.options.indexer != model::IndexerUse::kFrozen) {
    t.backward.add(keys.forward), t.backward.add(keys.backward);
    t.backward.tp.add(columns_to_rows(N * H / layout_.tp, A_));
    t.backward.tp.add(columns_to_rows(N / layout_.tp, C_));
  }
  return t;
}

Traffic LayoutTraffic::experts(int64_t layer) const {
  const model::Config& c = request_.config;
  const double rows = static_cast<double>(P_ * c.num_experts_per_tok);  // to the rank come as many, if loads are even
  const double hidden = rows * static_cast<double>(c.hidden_size) * A_, weights = rows * C_;
  Traffic t;
  t.forward.ep.gather(bytes_of(layout_.ep, c.n_routed_experts, 4), layout_.ep);
  t.forward.ep.exchange(weights, weights, layout_.ep);
  t.backward.ep.exchange(weights, weights, layout_.ep);
  for (PassTraffic* pass : {&t.forward, &t.backward})
    for (int i = 0; i < 2; ++i) pass->ep.exchange(hidden, hidden, layout_.ep);  // there and back
  t.rebuilt = t.forward;
  const bool is_hash = layer < c.num_hidden_layers && c.is_hash_moe[layer];
  if (request_.auxiliary.balance > 0 && !is_hash) {
    t.backward.cp.all_reduce(bytes_of(c.n_routed_experts, 1, 4), layout_.cp);
    t.backward.tp.all_reduce(bytes_of(c.n_routed_experts, 1, 4), layout_.tp);
  }
  return t;
}

Traffic LayoutTraffic::embedding() const {
  Traffic t;
  const int64_t padded = part_.padded(T_), D = request_.config.hidden_size;
  t.forward.tp.gather(bytes_of(padded, D, A_), layout_.tp);
  t.backward.tp.gather(bytes_of(padded, D, C_), layout_.tp);
  return t;
}

Traffic LayoutTraffic::head() const {
  const int64_t R = row_.num_targets(shard_.cut.rank), chunk = request_.options.logit_chunk;
  Traffic t;
  if (R > 0) t.forward.tp.gather(bytes_of(part_.padded(T_), request_.config.hidden_size, A_), layout_.tp);
  for (int64_t begin = 0; begin < R; begin += chunk) {
    const int64_t rows = part_.size * std::min(chunk, R - begin);
    t.forward.tp.gather(bytes_of(rows, 3, C_), layout_.tp);  // logsumexp, the best logit, the target's
    t.forward.tp.gather(bytes_of(rows, 1, 4), layout_.tp);   // the best word
  }
  t.backward.tp.gather(bytes_of(part_.padded(T_), request_.config.hidden_size, C_), layout_.tp);
  for (const double width : {8.0, 4.0}) t.forward.cp.all_reduce(bytes_of(row_.num_rows(), 1, width), layout_.cp);
  return t;
}

double LayoutTraffic::stream_bytes(double dtype_bytes) const {
  return bytes_of(P_, request_.config.hc_mult * request_.config.hidden_size, dtype_bytes);
}

}  // namespace temper::plan

#include "checkpoint/whole_weights.h"

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "parallel/texts.h"
#include "parallel/whole.h"

namespace temper::checkpoint {
namespace {

using layers::Parameter;
using nlohmann::json;

constexpr double kSilenceSeconds = 1;  // shorter than any deadline

// What the first rank tells another one.
enum Word : int64_t { kRead, kWait, kEnd, kFailed };
using Request = std::array<int64_t, 4>;  // a word; with kRead: parameter, first element, count. With kFailed: a length

View view_of(Request& request) { return {request.data(), DType::kI64, {static_cast<int64_t>(request.size())}}; }

constexpr comm::Call kRequest{"request for weights"}, kAnswer{"weights"};

// Which of the whole model's parts a name belongs to, in their order: the embedding, the layers, what comes after them;
// then which part of a layer (model/block.h). A stage of an interleaved pipeline has layers between those of others,
// and of a layer that is cut two stages have every other part.
std::pair<int64_t, size_t> place_of(std::string_view name) {
  constexpr std::string_view kLayers = "model.layers.";
  constexpr std::array<std::string_view, 6> kParts = {
      ".self_attn.", ".mlp.", ".input_layernorm.", ".post_attention_layernorm.", ".attn_hc.", ".ffn_hc."};
  if (name == "model.embed_tokens.weight") return {-1, 0};
  if (!name.starts_with(kLayers)) return {std::numeric_limits<int64_t>::max(), 0};
  const auto is_in = [&](std::string_view part) { return name.find(part) != name.npos; };
  const auto part = std::find_if(kParts.begin(), kParts.end(), is_in) - kParts.begin();
  return {std::stoll(std::string(name.substr(kLayers.size()))), static_cast<size_t>(part)};
}

}  // namespace

DType WholeWeights::record_dtype(const Parameter& p) { return parallel::record_of(p).dtype; }

WholeWeights::WholeWeights(layers::Ctx& ctx, std::span<Parameter* const> parameters)
    : ctx_(ctx), ranks_(comm::group_size(ctx.groups.world) > 1 ? ctx.groups.world : nullptr), mine_(parameters) {
  if (!ranks_) {
    parameters_.assign(parameters.begin(), parameters.end());
    return;
  }
  const std::vector<std::string> descriptions = parallel::gather_texts(ranks_, describe_mine());
  for (size_t rank = 0; rank < descriptions.size(); ++rank) note(static_cast<int64_t>(rank), descriptions[rank]);
  std::stable_sort(parameters_.begin(), parameters_.end(),
                   [](const Parameter* a, const Parameter* b) { return place_of(a->name) < place_of(b->name); });
  told_at_ = now_seconds();
}

std::string WholeWeights::describe_mine() const {
  json list = json::array();
  for (const Parameter* p : mine_) {
    json shape = json::array(), stretches = json::array();
    for (int d = 0; d < p->whole_shape().rank(); ++d) shape.push_back(p->whole_shape()[d]);
    parallel::for_each_stretch(*p, [&](int64_t begin, int64_t at, int64_t count) {
      stretches.push_back({begin, at, count});
    });
    list.push_back({p->name, std::move(shape), static_cast<int>(p->dtype), static_cast<int>(record_dtype(*p)),
                    std::move(stretches)});
  }
  return list.dump();
}

void WholeWeights::note(int64_t rank, const std::string& description) {
  int64_t number = 0;
  for (const json& entry : json::parse(description)) {
    const std::string name = entry[0];
    const auto [held, is_new] = held_.try_emplace(name);
    if (is_new) {
      auto& p = made_.emplace_back(std::make_unique<Parameter>());
      p->name = name, p->dtype = static_cast<DType>(entry[2].get<int>());
      for (const json& dim : entry[1]) p->shape.push_back(dim);
      p->value = View(nullptr, static_cast<DType>(entry[3].get<int>()), p->shape);
      parameters_.push_back(p.get());
    }
    // Of ranks with the same elements the first one is asked.
    for (const json& s : entry[4]) held->second.try_emplace(s[0].get<int64_t>(), Held{rank, number, s[1], s[2]});
    ++number;
  }
}

void WholeWeights::fetch_mine(const Parameter& p, int64_t at, int64_t count, std::byte* to) const {
  const View& record = parallel::record_of(p);
  ctx_.device.copy_to_host(ctx_.stream, to, record.reshape({record.size()}).rows(at, at + count));
}

void WholeWeights::read(const Parameter& p, int64_t begin, int64_t end, std::byte* to) {
  if (!ranks_) return fetch_mine(p, begin, end - begin, to);
  const DType dtype = record_dtype(p);
  const std::map<int64_t, Held>& held = held_.at(p.name);
  for (int64_t at = begin; at < end;) {
    const auto after = held.upper_bound(at);
    CHECK(after != held.begin(), p.name, at);
    const auto& [first, source] = *std::prev(after);
    const int64_t stop = std::min(end, first + source.count), count = stop - at, from = source.at + (at - first);
    CHECK(count > 0, p.name, at);  // else nobody has it
    std::byte* out = to + (at - begin) * dtype_bytes(dtype);
    if (source.rank == 0) {
      fetch_mine(*mine_[static_cast<size_t>(source.number)], from, count, out);
    } else {
      Request request = {kRead, source.number, from, count};
      ranks_->send(nullptr, view_of(request), source.rank, kRequest);
      ranks_->recv(nullptr, View(out, dtype, {count}), source.rank, kAnswer);
    }
    at = stop;
  }
  keep_waiting();
}

void WholeWeights::keep_waiting() {
  if (!ranks_ || now_seconds() - told_at_ < kSilenceSeconds) return;
  Request request = {kWait};
  for (int64_t rank = 1; rank < ranks_->size(); ++rank) ranks_->send(nullptr, view_of(request), rank, kRequest);
  told_at_ = now_seconds();
}

void WholeWeights::end(const std::string& problem) {
  if (!ranks_) return;
  Request request = {problem.empty() ? kEnd : kFailed};
  for (int64_t rank = 1; rank < ranks_->size(); ++rank) ranks_->send(nullptr, view_of(request), rank, kRequest);
  if (!problem.empty()) parallel::tell_all(ranks_, problem);
}

void WholeWeights::serve() {
  std::vector<std::byte> bytes;
  while (true) {
    Request request{};
    ranks_->recv(nullptr, view_of(request), 0, kRequest);
    const auto [word, number, at, count] = request;
    if (word == kEnd) return;
    if (word == kFailed) fail(ErrorCode::kPeer, "rank 0 could not save the model: {}", parallel::tell_all(ranks_, ""));
    if (word == kWait) continue;
    const Parameter& p = *mine_[static_cast<size_t>(number)];
    bytes.resize(static_cast<size_t>(count * dtype_bytes(record_dtype(p))));
    fetch_mine(p, at, count, bytes.data());
    ranks_->send(nullptr, View(bytes.data(), record_dtype(p), {count}), 0, kAnswer);
  }
}

}  // namespace temper::checkpoint

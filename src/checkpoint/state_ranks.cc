#include "checkpoint/state_ranks.h"

#include <nlohmann/json.hpp>

#include <algorithm>

#include "base/error.h"
#include "checkpoint/convert.h"
#include "parallel/texts.h"

namespace temper::checkpoint {
namespace {

using nlohmann::json;

// The ranks of a run trust one another: what they send is not checked as a file is.
std::string to_text(const StatePart& part) {
  json tensors = json::array();
  for (const ManifestTensor& tensor : part.tensors) {
    json shape = json::array(), pieces = json::array();
    for (int i = 0; i < tensor.shape.rank(); ++i) shape.push_back(tensor.shape[i]);
    for (const StatePiece& p : tensor.pieces) pieces.push_back({p.begin, p.count, p.offset, p.xxh3});
    tensors.push_back({tensor.name, static_cast<int>(tensor.dtype), std::move(shape), std::move(pieces)});
  }
  const StateFile& file = part.file;
  return json{file.name, file.num_bytes, file.header_bytes, file.header_xxh3, std::move(tensors)}.dump();
}

StatePart from_text(const std::string& text) {
  const json list = json::parse(text);
  StatePart part{{list[0], list[1], list[2], list[3]}, {}};
  for (const json& entry : list[4]) {
    ManifestTensor tensor{entry[0], static_cast<DType>(entry[1].get<int>()), {}, {}};
    for (const json& dim : entry[2]) tensor.shape.push_back(dim);
    for (const json& p : entry[3]) tensor.pieces.push_back({p[0], p[1], 0, p[2], p[3]});
    part.tensors.push_back(std::move(tensor));
  }
  return part;
}

}  // namespace

std::vector<StatePart> gather_parts(comm::Comm* ranks, const StatePart& part) {
  if (comm::group_size(ranks) == 1) return {part};
  std::vector<StatePart> parts;
  for (const std::string& text : parallel::gather_texts(ranks, to_text(part))) parts.push_back(from_text(text));
  return parts;
}

std::optional<OpenedState> open_newest(StateLog& log, int64_t at_most_step, std::vector<DamagedState>& damaged,
                                       comm::Comm* ranks) {
  if (comm::group_size(ranks) == 1) return log.open_newest(at_most_step, damaged);
  std::vector<int64_t> steps;  // of the first rank, which decides
  if (ranks->rank() == 0) steps = log.steps();
  while (true) {
    while (!steps.empty() && steps.back() > at_most_step) steps.pop_back();
    const int64_t step = std::stoll(parallel::tell_all(ranks, std::to_string(steps.empty() ? -1 : steps.back())));
    if (step < 0) return std::nullopt;
    at_most_step = step - 1;
    std::optional<OpenedState> state;
    std::string problem;
    try {
      state.emplace(log.open(step, {ranks->rank(), ranks->size()}));
    } catch (const Error& error) {
      problem = error.what();
    }
    const std::string first_hash = parallel::tell_all(ranks, state ? state->hash() : "");
    if (state && !first_hash.empty() && state->hash() != first_hash)
      problem = "the manifest of this state is another one than the first rank reads";
    problem = parallel::first_problem(ranks, problem);
    if (problem.empty()) {
      log.verified(step);
      return state;
    }
    damaged.push_back({step, problem});
  }
}

}  // namespace temper::checkpoint

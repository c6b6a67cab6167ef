#include "verify/findings.h"

#include <fmt/format.h>

#include <algorithm>

namespace temper::verify {

void Findings::fail(int64_t layer, std::string place, std::string message, std::string cause) {
  all_.push_back({true, layer, std::move(place), std::move(message), std::move(cause)});
}

void Findings::note(int64_t layer, std::string place, std::string message) {
  all_.push_back({false, layer, std::move(place), std::move(message), {}});
}

int64_t Findings::num_failed() const {
  return std::count_if(all_.begin(), all_.end(), [](auto& f) { return f.failed; });
}

std::string Findings::to_string(int64_t num_main_layers, int64_t most) const {
  std::string out;
  for (const bool failed : {true, false}) {
    int64_t shown = 0, count = 0;
    for (const Finding& finding : all_) {
      if (finding.failed != failed || ++count > most) continue;
      ++shown;
      const std::string layer = layer_name(finding.layer, num_main_layers);
      out += fmt::format("{} {}{}{}: {}\n", failed ? "FAILED" : "note  ", layer, layer.empty() ? "" : ", ",
                         finding.place, finding.message);
      if (!finding.cause.empty()) out += fmt::format("       cause: {}\n", finding.cause);
    }
    if (count > shown) out += fmt::format("       and {} more\n", count - shown);
  }
  return out;
}

nlohmann::json Findings::to_json() const {
  auto list = nlohmann::json::array();
  for (const Finding& finding : all_) {
    list.push_back({{"failed", finding.failed}, {"place", finding.place}, {"message", finding.message}});
    if (finding.layer != kNoLayer) list.back()["layer"] = finding.layer;
    if (!finding.cause.empty()) list.back()["cause"] = finding.cause;
  }
  return list;
}

std::string layer_name(int64_t layer, int64_t num_main_layers) {
  if (layer == kNoLayer) return {};
  return layer < num_main_layers ? fmt::format("layer {}", layer) : fmt::format("mtp {}", layer - num_main_layers);
}

}  // namespace temper::verify

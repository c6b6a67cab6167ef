#include "verify/structure.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <set>

#include "base/clock.h"
#include "verify/layer_structure.h"
#include "verify/statistics.h"

namespace temper::verify {
namespace {

using checkpoint::Part;

// Tensors of one kind, over all layers.
struct Kind {
  int64_t num_tensors = 0;
  std::set<std::string> encodings;
  Statistics statistics;
};

std::string joined(const std::set<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : " ") + word;
  return out;
}

std::string kind_of(const Weights::Piece& piece) {
  std::string_view name = piece.parameter->name;
  for (const std::string_view prefix : {"model.layers.", "mtp."})
    if (name.starts_with(prefix)) name = name.substr(name.find('.', prefix.size()) + 1);
  const Part stored = piece.tensor->name->part;
  const char* part = stored == Part::kGate ? " (w1)" : stored == Part::kUp ? " (w3)" : "";
  return std::string(name) + part;
}

std::string attention_name(const model::Config& config, int64_t layer) {
  const int64_t rate = layer < config.num_hidden_layers ? config.compress_rate(layer) : 0;
  if (rate == 0) return "sliding";
  return fmt::format("{}/{}", config.layer_types[layer] == model::AttentionKind::kCsa ? "CSA" : "HCA", rate);
}

std::string expert_columns(const LayerStructure& layer) {
  if (layer.expert_rms().empty()) return fmt::format("{:>26} {:>17} {:>17}", "-", "-", "-");
  const auto& rms = layer.expert_rms();
  const std::string bias =
      std::isnan(layer.bias_min()) ? "hash table" : fmt::format("{:.3g}..{:.3g}", layer.bias_min(), layer.bias_max());
  return fmt::format("{:>8.2e} {:>8.2e} {:>8.2e} {:>17} {:>17}", rms.front(), rms[rms.size() / 2], rms.back(),
                     fmt::format("{:.3g}..{:.3g}", layer.router_row_min(), layer.router_row_max()), bias);
}

std::string layer_line(const model::Config& config, const LayerStructure& layer) {
  const std::string name = layer.layer() == kNoLayer ? "model" : layer_name(layer.layer(), config.num_hidden_layers);
  return fmt::format("{:<10} {:<8} {:>7} {:>11} {:<14} {:>10} {}\n", name,
                     layer.layer() == kNoLayer ? "" : attention_name(config, layer.layer()), layer.num_tensors(),
                     format_bytes(layer.num_bytes()), joined(layer.encodings()), layer.num_bad(),
                     expert_columns(layer));
}

std::string kinds_table(const std::map<std::string, Kind>& kinds) {
  std::string out = fmt::format("\n{:<58} {:>7} {:<14} {:>10} {:>10} {:>9} {:>10}\n", "tensors", "count", "stored as",
                                "min", "max", "rms", "non-finite");
  for (const auto& [name, kind] : kinds)
    out += fmt::format("{:<58} {:>7} {:<14} {:>10.3g} {:>10.3g} {:>9.3g} {:>10}\n", name, kind.num_tensors,
                       joined(kind.encodings), kind.statistics.min, kind.statistics.max, kind.statistics.rms(),
                       kind.statistics.num_bad());
  return out;
}

nlohmann::json kinds_json(const std::map<std::string, Kind>& kinds) {
  auto out = nlohmann::json::object();
  for (const auto& [name, kind] : kinds)
    out[name] = {{"tensors", kind.num_tensors},       {"encodings", kind.encodings},
                 {"elements", kind.statistics.count}, {"min", kind.statistics.min},
                 {"max", kind.statistics.max},        {"rms", kind.statistics.rms()},
                 {"nan", kind.statistics.num_nan},    {"infinite", kind.statistics.num_infinite}};
  return out;
}

// The layer that a message about a tensor names, by its first name.
int64_t layer_in(const std::string& message, int64_t num_main_layers) {
  for (const char* prefix : {"layers.", "mtp."}) {
    const size_t at = message.find(prefix);
    if (at == std::string::npos) continue;
    return layer_of((prefix[0] == 'l' ? "model." : "") + message.substr(at), num_main_layers);
  }
  return kNoLayer;
}

}  // namespace

int64_t layer_of(const std::string& parameter, int64_t num_main_layers) {
  const std::pair<std::string_view, int64_t> prefixes[] = {{"model.layers.", 0}, {"mtp.", num_main_layers}};
  for (const auto& [prefix, first] : prefixes) {
    int64_t index = 0;
    if (!parameter.starts_with(prefix)) continue;
    const char* begin = parameter.data() + prefix.size();
    if (std::from_chars(begin, parameter.data() + parameter.size(), index).ec == std::errc()) return first + index;
  }
  return kNoLayer;
}

nlohmann::json check_structure(const Weights& weights, Findings& findings, const Print& print) {
  const double start = now_seconds();
  const model::Config& config = weights.config();
  for (const std::string& misfit : weights.misfits())
    findings.fail(layer_in(misfit, config.num_hidden_layers), "weights", misfit);
  std::map<int64_t, std::vector<const Weights::Piece*>> by_layer;
  for (const Weights::Piece& piece : weights.pieces())
    by_layer[layer_of(piece.parameter->name, config.num_hidden_layers)].push_back(&piece);

  print(fmt::format("{:<10} {:<8} {:>7} {:>11} {:<14} {:>10} {:>26} {:>17} {:>17}\n", "layer", "attends", "tensors",
                    "size", "stored as", "non-finite", "expert rms: min med max", "router row norms", "router bias"));
  std::map<std::string, Kind> kinds;
  auto layers = nlohmann::json::array();
  int64_t num_bytes = 0;
  for (const auto& [number, pieces] : by_layer) {
    LayerStructure layer(number, config, findings);
    for (const Weights::Piece* piece : pieces) {
      const Statistics statistics = layer.add(*piece);
      Kind& kind = kinds[kind_of(*piece)];
      ++kind.num_tensors;
      kind.encodings.insert(encoding_name(piece->tensor->encoded));
      kind.statistics.add(statistics);
      release(piece->tensor->encoded);
    }
    layer.finish();
    print(layer_line(config, layer));
    layers.push_back(layer.to_json());
    num_bytes += layer.num_bytes();
  }
  const double seconds = now_seconds() - start;
  print(kinds_table(kinds));
  const double bytes_per_second = static_cast<double>(num_bytes) / std::max(seconds, 1e-9);
  print(fmt::format("\nread {} in {:.1f} s: {}/s\n", format_bytes(num_bytes), seconds,
                    format_bytes(static_cast<int64_t>(bytes_per_second))));
  if (weights.num_skipped() > 0)
    print(fmt::format("{} tensors of MTP blocks that the model does not have were left out\n", weights.num_skipped()));
  return {{"layers", layers},   {"kinds", kinds_json(kinds)},           {"bytes", num_bytes},
          {"seconds", seconds}, {"bytes_per_second", bytes_per_second}, {"skipped_tensors", weights.num_skipped()}};
}

}  // namespace temper::verify

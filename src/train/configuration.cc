#include "train/configuration.h"

#include <fmt/format.h>
#include <xxhash.h>

#include "train/run_keys.h"

namespace temper::train {
namespace {

using Json = nlohmann::ordered_json;

Json value_of(const Field& field) {
  struct Visitor {
    Json operator()(const std::string* value) const { return *value; }
    Json operator()(const bool* value) const { return *value; }
    Json operator()(const IntegerField& value) const { return *value.value; }
    Json operator()(const RealField& value) const { return *value.value; }
    Json operator()(const ChoiceField& value) const { return *value.value; }
    Json operator()(const std::vector<std::string>* value) const { return *value; }
    Json operator()(const std::array<double, 2>* value) const { return *value; }
  };
  return std::visit(Visitor{}, field);
}

}  // namespace

Json configuration_of(const RunConfig& config) {
  RunConfig copy = config;  // the table of keys binds to fields that can be written
  Json out = Json::object();
  for (const Key& key : run_keys(copy)) out[std::string(key.name)] = value_of(key.field);
  return out;
}

RunConfig config_of(const Json& configuration, const std::string& origin) {
  // Strings, numbers, truth values and lists are written alike in JSON and TOML.
  std::vector<std::string> settings;
  for (const auto& [key, value] : configuration.items()) settings.push_back(key + "=" + value.dump());
  return parse_run_config("", origin, settings);
}

std::vector<std::string> changed_mathematics(const Json& before, const RunConfig& now) {
  RunConfig copy = now, defaults;
  const Json default_values = configuration_of(defaults);
  std::vector<std::string> lines;
  for (const Key& key : run_keys(copy)) {
    if (key.effect != Effect::kMathematics) continue;
    const std::string name(key.name);
    const Json &old = before.contains(name) ? before[name] : default_values[name], current = value_of(key.field);
    if (old != current) lines.push_back(fmt::format("{}: {}, now {}", name, old.dump(), current.dump()));
  }
  return lines;
}

std::string configuration_hash(const RunConfig& config, const nlohmann::json& model_config) {
  RunConfig copy = config;
  Json mathematics = Json::object();
  for (const Key& key : run_keys(copy))
    if (key.effect == Effect::kMathematics) mathematics[std::string(key.name)] = value_of(key.field);
  const std::string text = mathematics.dump() + '\n' + model_config.dump();
  const XXH128_hash_t hash = XXH3_128bits(text.data(), text.size());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace temper::train

#include "train/run_config.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/nearest.h"
#include "train/run_keys.h"
#include "train/toml.h"

namespace temper::train {
namespace {

// A value in the file or in an override, and how messages call its place.
struct Setting {
  std::string key;
  const toml::node* node;
  std::string place;
};

std::string found_words(const toml::node& node) {
  if (auto text = node.value_exact<std::string>()) return fmt::format("the string \"{}\"", *text);
  if (auto number = node.value_exact<int64_t>()) return fmt::format("the whole number {}", *number);
  if (auto number = node.value_exact<double>()) return fmt::format("the number {}", *number);
  if (auto flag = node.value_exact<bool>()) return *flag ? "true" : "false";
  if (node.is_array()) return fmt::format("a list of {} values", node.as_array()->size());
  if (node.is_table()) return "a table";
  return "a date or time";
}

// Each assign() stores the value if type and range fit the field.
bool assign(const toml::node& node, std::string* to) {
  auto text = node.value_exact<std::string>();
  if (text) *to = *text;
  return text.has_value();
}

bool assign(const toml::node& node, bool* to) {
  auto flag = node.value_exact<bool>();
  if (flag) *to = *flag;
  return flag.has_value();
}

bool assign(const toml::node& node, const IntegerField& to) {
  auto number = node.value_exact<int64_t>();
  if (!number || *number < to.min) return false;
  *to.value = *number;
  return true;
}

bool assign(const toml::node& node, const RealField& to) {
  auto number = node.is_number() ? node.value<double>() : std::nullopt;
  if (!number || !(*number >= to.min && *number <= to.max)) return false;
  *to.value = *number;
  return true;
}

bool assign(const toml::node& node, const ChoiceField& to) {
  auto text = node.value_exact<std::string>();
  if (!text || std::find(to.choices.begin(), to.choices.end(), *text) == to.choices.end()) return false;
  *to.value = *text;
  return true;
}

bool assign(const toml::node& node, std::vector<std::string>* to) {
  std::vector<std::string> values;
  if (auto text = node.value_exact<std::string>()) {
    values.push_back(*text);
  } else {
    if (!node.is_array()) return false;
    for (const toml::node& element : *node.as_array()) {
      if (!element.is_string()) return false;
      values.push_back(*element.value_exact<std::string>());
    }
  }
  *to = std::move(values);
  return true;
}

bool assign(const toml::node& node, std::array<double, 2>* to) {
  const toml::array* list = node.as_array();
  if (!list || list->size() != 2) return false;
  for (size_t i = 0; i < 2; ++i) {
    auto number = (*list)[i].is_number() ? (*list)[i].value<double>() : std::nullopt;
    if (!number || !(*number >= 0 && *number < 1)) return false;
    (*to)[i] = *number;
  }
  return true;
}

[[noreturn]] void fail_unknown(const Setting& setting, const std::vector<Key>& keys) {
  const Key* nearest = nullptr;
  int smallest = 0;
  for (const Key& key : keys) {
    const int distance = edit_distance(std::string_view(setting.key).substr(0, 256), key.name);
    if (!nearest || distance < smallest) nearest = &key, smallest = distance;
  }
  fail(ErrorCode::kInvalidArgument,
       "{}: unknown key {}; the nearest known key is {} (`temper train --help-keys` lists all)", setting.place,
       setting.key, nearest->name);
}

void apply(const Setting& setting, const std::vector<Key>& keys, std::vector<std::string>& given) {
  auto key = std::find_if(keys.begin(), keys.end(), [&](const Key& k) { return k.name == setting.key; });
  if (key == keys.end()) fail_unknown(setting, keys);
  if (!std::visit([&](const auto& field) { return assign(*setting.node, field); }, key->field)) {
    fail(ErrorCode::kInvalidArgument, "{}: {} is {}; expected {}", setting.place, setting.key,
         found_words(*setting.node), type_words(key->field));
  }
  given.push_back(setting.key);
}

void apply_file(const toml::table& table, const std::string& origin, const std::vector<Key>& keys,
                std::vector<std::string>& given) {
  auto place = [&](const toml::node& node) { return fmt::format("{}:{}", origin, node.source().begin.line); };
  for (const auto& [section, node] : table) {
    const std::string prefix(section.str());
    if (!node.is_table()) fail_unknown({prefix, &node, place(node)}, keys);
    for (const auto& [name, value] : *node.as_table()) {
      apply({fmt::format("{}.{}", prefix, name.str()), &value, place(value)}, keys, given);
    }
  }
}

void apply_override(const std::string& text, const std::vector<Key>& keys, std::vector<std::string>& given) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    fail(ErrorCode::kInvalidArgument, "--set {}: expected section.key=value", text);
  }
  const std::string value = text.substr(equals + 1);
  toml::table table;
  try {
    table = parse_toml("value = " + value, "--set");
  } catch (const Error&) {
    table.insert("value", value);  // a bare word
  }
  apply({text.substr(0, equals), table.get("value"), "--set " + text}, keys, given);
}

void require(bool condition, const std::string& origin, std::string_view message) {
  if (!condition) fail(ErrorCode::kInvalidArgument, "{}: {}", origin, message);
}

void check_agreement(const RunConfig& c, const std::string& origin) {
  require(c.model.path.empty() != c.model.config.empty(), origin,
          "give either model.path (a model directory) or model.config (a random start)");
  require(c.model.config.empty() || !c.model.tokenizer.empty(), origin, "model.config needs model.tokenizer beside it");
  require(!c.data.train.empty(), origin, "data.train names no file");
  require(!c.output.dir.empty(), origin, "output.dir is missing");
  require((c.train.steps > 0) != (c.train.epochs > 0), origin, "give either train.steps or train.epochs, above 0");
  require(c.data.max_document <= c.train.tokens_per_micro_batch, origin,
          "data.max_document must not exceed train.tokens_per_micro_batch");
  require(c.optimizer.min_lr <= c.optimizer.lr, origin, "optimizer.min_lr must not exceed optimizer.lr");
  require(c.output.eval_every == 0 || !c.data.eval.empty(), origin, "output.eval_every needs data.eval");
  require(c.eval.samples == 0 || !c.data.eval.empty(), origin, "eval.samples needs data.eval");
  require(c.eval.top_p > 0, origin, "eval.top_p must be above 0");
  require(c.train.indexer == "frozen" || c.train.indexer_weight > 0, origin,
          "train.indexer asks for a trained indexer, and train.indexer_weight is 0");
  require(c.model.allow_missing.empty() || !c.model.path.empty(), origin, "model.allow_missing needs model.path");
  make_objective(c);
}

}  // namespace

RunConfig load_run_config(const std::string& path, const std::vector<std::string>& overrides) {
  return parse_run_config(read_file(path), path, overrides);
}

RunConfig parse_run_config(const std::string& text, const std::string& origin,
                           const std::vector<std::string>& overrides) {
  RunConfig config;
  const std::vector<Key> keys = run_keys(config);
  std::vector<std::string> given;
  apply_file(parse_toml(text, origin), origin, keys, given);
  for (const std::string& override_text : overrides) apply_override(override_text, keys, given);
  check_agreement(config, origin);
  std::copy_if(given.begin(), given.end(), std::back_inserter(config.layout.given),
               [](const std::string& key) { return key.starts_with("layout."); });
  return config;
}

std::unique_ptr<objective::Objective> make_objective(const RunConfig& config) {
  objective::ObjectiveOptions options;
  using Reduction = objective::ObjectiveOptions::Reduction;
  options.reduction = config.train.loss_reduction == "sample" ? Reduction::kSample : Reduction::kToken;
  options.dft = config.train.dft;
  return objective::make_objective(config.train.objective, options);
}

std::string help_keys() {
  RunConfig defaults;
  std::string out, section;
  for (const Key& key : run_keys(defaults)) {
    const size_t dot = key.name.find('.');
    if (key.name.substr(0, dot) != section) {
      section = key.name.substr(0, dot);
      out += fmt::format("{}[{}]\n", out.empty() ? "" : "\n", section);
    }
    out += fmt::format("{} = {}\n    {}. {}.\n", key.name.substr(dot + 1), current_value(key.field), key.help,
                       type_words(key.field));
  }
  return out;
}

}  // namespace temper::train

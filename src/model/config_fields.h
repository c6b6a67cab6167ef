// Typed access to the fields of a JSON object of a model configuration. Every failure is kInvalidArgument with the
// origin, the field, what was found and what was expected.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace temper::model {

using Json = nlohmann::ordered_json;

// Field names of config.json in both spellings, and names found beside them that resemble one of ours.
std::span<const std::string_view> known_config_fields();
std::span<const std::string_view> known_rope_fields();

class Fields {
 public:
  // Keeps a reference to object, which must outlive it. origin names the object in messages.
  Fields(const Json& object, std::string origin);

  const std::string& origin() const { return origin_; }

  // A field that is null counts as absent: nullptr, or no value.
  const Json* find(std::string_view name) const;
  bool is_null(std::string_view name) const;
  std::optional<int64_t> integer(std::string_view name) const;
  std::optional<std::string> string(std::string_view name) const;
  double number(std::string_view name, double otherwise) const;
  int64_t required(std::string_view name) const;
  // A field with an alias; both may be given if they agree.
  int64_t required(std::string_view name, std::string_view alias) const;

  // Refuses a field that is not known but resembles a known one; other unknown fields pass.
  void refuse_misspellings(std::span<const std::string_view> known) const;

  [[noreturn]] void wrong_type(std::string_view name, const Json& value, std::string_view expected) const;

 private:
  const Json& object_;
  std::string origin_;
};

}  // namespace temper::model

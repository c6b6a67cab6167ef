// The table of RUN.toml's keys. It drives parsing, error messages and the reference listing alike.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "train/run_config.h"

namespace temper::train {

struct IntegerField {
  int64_t* value;
  int64_t min;
};
struct RealField {
  double* value;
  double min, max;
};
struct ChoiceField {
  std::string* value;
  std::vector<std::string_view> choices;
};
using Field = std::variant<std::string*, bool*, IntegerField, RealField, ChoiceField, std::vector<std::string>*,
                           std::array<double, 2>*>;

// Whether a run whose key has another value would compute something else.
enum class Effect : uint8_t {
  kMathematics,  // it would; a run cannot be resumed with another value
  kNone,         // where files are, how often something is written, when the run pauses
};

struct Key {
  std::string_view name;  // "train.steps"
  Field field;            // where the value goes
  std::string_view help;
  Effect effect = Effect::kMathematics;
};

// All keys in the order of the reference, bound to the fields of config, which must outlive the result.
std::vector<Key> run_keys(RunConfig& config);

std::string type_words(const Field& field);     // "a whole number", "\"cut\" or \"drop\""
std::string current_value(const Field& field);  // as TOML

}  // namespace temper::train

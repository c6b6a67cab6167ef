#include "data/python_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <unordered_map>

namespace temper::data {
namespace {

constexpr size_t kMaxDepth = 500;

// float.__repr__: the shortest digits, written with an exponent below 1e-4 and from 1e16.
std::string python_float(double value) {
  std::array<char, 32> buffer;
  const auto written = [&](std::chars_format format) {
    return std::string(buffer.data(), std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, format).ptr);
  };
  std::string scientific = written(std::chars_format::scientific);
  const int exponent = std::stoi(scientific.substr(scientific.find('e') + 1));
  if (exponent < -4 || exponent >= 16) return scientific;
  const std::string fixed = written(std::chars_format::fixed);
  return fixed.find('.') == std::string::npos ? fixed + ".0" : fixed;
}

// Builds the values from the inside out: a closed object or array is one member, already written, of what holds it.
class Writer : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return add(JsonKind::kOther, "null"); }
  bool boolean(bool value) override { return add(JsonKind::kOther, value ? "true" : "false"); }
  bool number_integer(int64_t value) override { return add(JsonKind::kOther, std::to_string(value)); }
  bool number_unsigned(uint64_t value) override { return add(JsonKind::kOther, std::to_string(value)); }
  bool number_float(double value, const std::string& spelled) override {
    const bool is_whole = spelled.find_first_of(".eE") == spelled.npos;  // too long for 64 bits
    return add(JsonKind::kOther, is_whole ? spelled : python_float(value));
  }
  bool string(std::string& value) override { return add(JsonKind::kString, std::move(value)); }
  bool binary(nlohmann::json::binary_t&) override { return false; }
  bool start_object(size_t) override { return open(JsonKind::kObject); }
  bool start_array(size_t) override { return open(JsonKind::kArray); }
  bool key(std::string& name) override {
    open_.back().key = std::move(name);
    return true;
  }
  bool end_object() override { return close("{", "}"); }
  bool end_array() override { return close("[", "]"); }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception&) override { return false; }

  JsonValue take() { return std::move(result_); }

 private:
  struct Container {
    JsonKind kind;
    std::string key;  // of the member that comes next
    std::vector<JsonMember> members;
    std::unordered_map<std::string, size_t> places;  // of an object's keys among its members
  };

  bool open(JsonKind kind) {
    if (open_.size() == kMaxDepth) return false;
    open_.push_back({kind, {}, {}, {}});
    return true;
  }

  bool add(JsonKind kind, std::string text) {
    if (open_.empty()) {
      result_.kind = kind;
      result_.text = std::move(text);
      return true;
    }
    Container& holder = open_.back();
    if (holder.kind == JsonKind::kArray) {
      holder.members.push_back({{}, kind, std::move(text)});
      return true;
    }
    const auto [place, is_new] = holder.places.try_emplace(holder.key, holder.members.size());
    if (is_new) holder.members.push_back({holder.key, kind, {}});
    JsonMember& member = holder.members[place->second];
    member.kind = kind;
    member.text = std::move(text);
    return true;
  }

  bool close(std::string_view begin, std::string_view end) {
    Container closed = std::move(open_.back());
    open_.pop_back();
    std::string text(begin);
    for (const JsonMember& member : closed.members) {
      if (text.size() > 1) text += ", ";
      if (closed.kind == JsonKind::kObject) text += python_json_string(member.key) + ": ";
      text += member.kind == JsonKind::kString ? python_json_string(member.text) : member.text;
    }
    text += end;
    if (open_.empty()) result_.members = std::move(closed.members);
    return add(closed.kind, std::move(text));
  }

  std::vector<Container> open_;
  JsonValue result_;
};

}  // namespace

bool JsonValue::is_truthy() const {
  if (kind == JsonKind::kObject || kind == JsonKind::kArray) return !members.empty();
  if (kind == JsonKind::kString) return !text.empty();
  return text != "null" && text != "false" && text != "0" && text != "0.0" && text != "-0.0";
}

const JsonMember* JsonValue::find(std::string_view key) const {
  if (kind != JsonKind::kObject) return nullptr;
  const auto found =
      std::find_if(members.begin(), members.end(), [&](const auto& member) { return member.key == key; });
  return found == members.end() ? nullptr : &*found;
}

std::optional<JsonValue> read_python_json(std::string_view text) {
  if (text.starts_with("\xEF\xBB\xBF")) return std::nullopt;  // the parser would pass over it, Python does not
  Writer writer;
  if (!nlohmann::json::sax_parse(text, &writer)) return std::nullopt;
  return writer.take();
}

std::string python_json_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out += fmt::format("\\u{:04x}", static_cast<int>(c));
        } else {
          out += c;
        }
    }
  }
  return out + "\"";
}

}  // namespace temper::data

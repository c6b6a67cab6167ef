#include "data/tokenizer_file.h"

#include <simdjson.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "base/error.h"
#include "base/file.h"
#include "data/byte_alphabet.h"
#include "data/split.h"

namespace temper::data {
namespace {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::object;

// Reads one file; every complaint names its origin.
class TokenizerFileReader {
 public:
  TokenizerFileReader(const std::string& text, const std::string& origin) : origin_(origin), text_(text) {}

  TokenizerSpec read() {
    simdjson::dom::parser parser;
    element root_element;
    if (const auto error = parser.parse(text_).get(root_element))
      corrupt("it is not JSON: {}", simdjson::error_message(error));
    object root = as_object(root_element, "the file");
    read_normalizer(root);
    read_pre_tokenizer(root);
    read_decoder(root);
    read_model(root);
    read_added_tokens(root);
    return std::move(spec_);
  }

 private:
  template <class... Args>
  [[noreturn]] void corrupt(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorCode::kCorrupt, "cannot read tokenizer {}: {}", origin_,
         fmt::format(format, std::forward<Args>(args)...));
  }
  template <class... Args>
  [[noreturn]] void unsupported(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorCode::kUnsupported,
         "cannot use tokenizer {}: {}; byte-level BPE in the form of GPT-2 and DeepSeek is read", origin_,
         fmt::format(format, std::forward<Args>(args)...));
  }

  object as_object(element value, std::string_view what) const {
    object out;
    if (value.get(out)) corrupt("{} is not a JSON object", what);
    return out;
  }
  array as_array(element value, std::string_view what) const {
    array out;
    if (value.get(out)) corrupt("{} is not a JSON array", what);
    return out;
  }
  std::string_view as_string(element value, std::string_view what) const {
    std::string_view out;
    if (value.get(out)) corrupt("{} is not a string", what);
    return out;
  }
  int32_t as_id(element value, std::string_view what) const {
    int64_t out = 0;
    if (value.get(out) || out < 0 || out >= static_cast<int64_t>(text_.size()) || out > INT32_MAX)
      corrupt("the id of {} is not an integer from 0 to the number of bytes of the file, {}", what, text_.size());
    return static_cast<int32_t>(out);
  }
  // Absent and null are the same.
  std::optional<element> member(object parent, std::string_view key) const {
    element out;
    if (parent[key].get(out) || out.is_null()) return std::nullopt;
    return out;
  }
  element need(object parent, std::string_view key, std::string_view what) const {
    const auto out = member(parent, key);
    if (!out) corrupt("{} has no \"{}\"", what, key);
    return *out;
  }
  bool flag(object parent, std::string_view key, bool otherwise, std::string_view what) const {
    const auto value = member(parent, key);
    bool out = otherwise;
    if (value && value->get(out)) corrupt("\"{}\" of {} is not true or false", key, what);
    return out;
  }
  void need_empty_text(object parent, std::string_view key) const {
    const auto value = member(parent, key);
    if (value && !as_string(*value, key).empty()) unsupported("model has \"{}\"", key);
  }

  void read_normalizer(object root) const {
    const auto value = member(root, "normalizer");
    if (!value) return;
    const object normalizer = as_object(*value, "normalizer");
    const std::string_view type = as_string(need(normalizer, "type", "normalizer"), "type of normalizer");
    if (type != "Sequence") unsupported("normalizer \"{}\"", type);
    const array parts = as_array(need(normalizer, "normalizers", "normalizer"), "normalizers");
    if (parts.size() != 0) unsupported("a normalizer of {} parts", parts.size());
  }

  void read_pre_tokenizer(object root) {
    const object first = as_object(need(root, "pre_tokenizer", "the file"), "pre_tokenizer");
    bool byte_level = false;
    if (as_string(need(first, "type", "pre_tokenizer"), "type of pre_tokenizer") == "Sequence") {
      for (const element part : as_array(need(first, "pretokenizers", "pre_tokenizer"), "pretokenizers"))
        read_pre_tokenizer_part(as_object(part, "a part of pre_tokenizer"), byte_level);
    } else {
      read_pre_tokenizer_part(first, byte_level);
    }
    if (!byte_level) unsupported("pre_tokenizer without ByteLevel");
  }

  void read_pre_tokenizer_part(object part, bool& byte_level) {
    const std::string_view type = as_string(need(part, "type", "pre_tokenizer part"), "type of pre_tokenizer part");
    if (byte_level) unsupported("pre_tokenizer \"{}\" after ByteLevel", type);
    if (type == "ByteLevel") {
      byte_level = true;
      if (flag(part, "add_prefix_space", true, type)) unsupported("ByteLevel with add_prefix_space");
      if (flag(part, "use_regex", true, type)) spec_.split_patterns.push_back(gpt2_split_pattern());
      return;
    }
    if (type != "Split") unsupported("pre_tokenizer \"{}\"", type);
    const std::string_view behavior = as_string(need(part, "behavior", "Split"), "behavior of Split");
    if (behavior != "Isolated") unsupported("Split with behavior \"{}\"", behavior);
    const object pattern = as_object(need(part, "pattern", "Split"), "pattern of Split");
    if (const auto regex = member(pattern, "Regex")) {
      spec_.split_patterns.emplace_back(as_string(*regex, "Regex"));
    } else {
      spec_.split_patterns.push_back(literal(as_string(need(pattern, "String", "pattern of Split"), "String")));
    }
  }

  // A pattern that matches `text` and nothing else.
  static std::string literal(std::string_view text) {
    std::string out;
    for (const char c : text) {
      if (static_cast<uint8_t>(c) < 0x80 && !std::isalnum(static_cast<uint8_t>(c))) out += '\\';
      out += c;
    }
    return out;
  }

  void read_decoder(object root) const {
    const object decoder = as_object(need(root, "decoder", "the file"), "decoder");
    const std::string_view type = as_string(need(decoder, "type", "decoder"), "type of decoder");
    if (type != "ByteLevel") unsupported("decoder \"{}\"", type);
  }

  void read_model(object root) {
    const object model = as_object(need(root, "model", "the file"), "model");
    // Old files leave the type of the model out.
    const auto type = member(model, "type");
    if (type && as_string(*type, "type of model") != "BPE") unsupported("model \"{}\"", as_string(*type, "type"));
    if (member(model, "dropout")) unsupported("model with dropout");
    need_empty_text(model, "continuing_subword_prefix");
    need_empty_text(model, "end_of_word_suffix");
    spec_.ignore_merges = flag(model, "ignore_merges", false, "model");
    for (const auto field : as_object(need(model, "vocab", "model"), "vocab")) {
      const int32_t id = as_id(field.value, field.key);
      if (!ids_.try_emplace(field.key, id).second) corrupt("token \"{}\" is twice in the vocabulary", field.key);
      claim_id(id, field.key);
      spec_.vocab.emplace_back(field.key, id);
    }
    for (int byte = 0; byte < 256; ++byte) {
      if (!ids_.contains(spell_byte(static_cast<uint8_t>(byte)))) corrupt("byte {} has no token", byte);
    }
    for (const element merge : as_array(need(model, "merges", "model"), "merges")) read_merge(merge);
  }

  void read_merge(element merge) {
    const size_t rank = spec_.merges.size();
    std::string_view left, right, joined;
    array pair;
    if (merge.get(pair) == simdjson::SUCCESS) {
      if (pair.size() != 2) corrupt("merge {} has {} parts, not 2", rank, pair.size());
      left = as_string(pair.at(0).value(), "a merge's left part"), right = as_string(pair.at(1).value(), "right part");
    } else {
      joined = as_string(merge, "a merge");
      const size_t space = joined.find(' ');
      if (space == joined.npos || joined.find(' ', space + 1) != joined.npos)
        corrupt("merge {}, \"{}\", is not two parts with a space between", rank, joined);
      left = joined.substr(0, space), right = joined.substr(space + 1);
    }
    const auto id_of = [&](std::string_view token) {
      const auto found = ids_.find(token);
      if (found == ids_.end()) corrupt("merge {} speaks of \"{}\", which is not in the vocabulary", rank, token);
      return found->second;
    };
    spec_.merges.push_back({id_of(left), id_of(right), id_of(std::string(left) + std::string(right))});
  }

  void read_added_tokens(object root) {
    const auto list = member(root, "added_tokens");
    if (!list) return;
    for (const element entry : as_array(*list, "added_tokens")) {
      const object token = as_object(entry, "an added token");
      AddedToken added;
      added.content = as_string(need(token, "content", "an added token"), "content of an added token");
      if (added.content.empty()) corrupt("an added token is empty");
      added.id = as_id(need(token, "id", added.content), added.content);
      for (const std::string_view key : {"single_word", "lstrip", "rstrip"}) {
        if (flag(token, key, false, added.content)) unsupported("added token \"{}\" with {}", added.content, key);
      }
      added.special = flag(token, "special", false, added.content);
      added.normalized = flag(token, "normalized", !added.special, added.content);
      const auto in_vocab = ids_.find(added.content);
      if (in_vocab == ids_.end()) {
        claim_id(added.id, added.content);
      } else if (in_vocab->second != added.id) {
        corrupt("added token \"{}\" has id {}, in the vocabulary {}", added.content, added.id, in_vocab->second);
      }
      spec_.added.push_back(std::move(added));
    }
  }

  void claim_id(int32_t id, std::string_view token) {
    const auto [place, is_new] = owners_.try_emplace(id, token);
    if (!is_new) corrupt("id {} belongs to both \"{}\" and \"{}\"", id, place->second, token);
  }

  const std::string &origin_, &text_;
  TokenizerSpec spec_;
  std::unordered_map<std::string_view, int32_t> ids_;  // views into the parser's strings
  std::unordered_map<int32_t, std::string> owners_;
};

}  // namespace

TokenizerSpec parse_tokenizer(const std::string& text, const std::string& origin) {
  return TokenizerFileReader(text, origin).read();
}

TokenizerSpec read_tokenizer_file(const std::filesystem::path& path) {
  return parse_tokenizer(read_file(path), path.string());
}

std::string tokenizer_file_text(const TokenizerSpec& spec) {
  using Json = nlohmann::ordered_json;
  Json added = Json::array();
  for (const AddedToken& token : spec.added) {
    added.push_back({{"id", token.id},
                     {"content", token.content},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", token.normalized},
                     {"special", token.special}});
  }
  Json splits = Json::array();
  for (const std::string& pattern : spec.split_patterns) {
    splits.push_back(
        {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
  }
  Json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
  splits.push_back(byte_level);
  // A vector of pairs, not an ordered_json object, whose insertion is a linear search.
  std::unordered_map<int32_t, std::string_view> spelling;
  std::string vocab = "{";
  for (const auto& [token, id] : spec.vocab) {
    vocab += fmt::format("{}\n      {}: {}", vocab.size() > 1 ? "," : "", Json(token).dump(), id);
    spelling.emplace(id, token);
  }
  vocab += "\n    }";
  std::string merges = "[";
  for (const Merge& merge : spec.merges) {
    merges += fmt::format("{}\n      [{}, {}]", merges.size() > 1 ? "," : "", Json(spelling.at(merge.left)).dump(),
                          Json(spelling.at(merge.right)).dump());
  }
  merges += "\n    ]";
  return fmt::format(
      "{{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": {},\n"
      "  \"normalizer\": null,\n  \"pre_tokenizer\": {},\n  \"post_processor\": null,\n  \"decoder\": {},\n"
      "  \"model\": {{\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": null,\n"
      "    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n    \"fuse_unk\": false,\n"
      "    \"byte_fallback\": false,\n    \"ignore_merges\": {},\n    \"vocab\": {},\n    \"merges\": {}\n  }}\n}}\n",
      added.dump(), Json{{"type", "Sequence"}, {"pretokenizers", splits}}.dump(), byte_level.dump(), spec.ignore_merges,
      vocab, merges);
}

}  // namespace temper::data

#include "data/prose_blocks.h"

#include <sha2.h>

#include <map>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/path_inside.h"
#include "data/python_strings.h"
#include "data/special_tokens.h"

namespace temper::data {
namespace {

namespace fs = std::filesystem;

constexpr uintmax_t kMaxFileBytes = 1 << 20;

std::string known_names() {
  std::string out;
  for (const std::string_view name : kProseBlockNames) out.append(out.empty() ? "" : ", ").append(name);
  return out;
}

// A template of Python's str.format with its placeholders filled in, in pieces: before and after the placeholder
// `split_at`, which must be there once. Nothing if a placeholder is unknown or the template is malformed.
std::optional<std::array<std::string, 2>> fill(std::string_view text, std::string_view split_at) {
  static const std::map<std::string_view, std::string_view> kKnown = {
      {"dsml_token", kDsml}, {"thinking_start_token", kThink}, {"thinking_end_token", kEndThink}};
  std::array<std::string, 2> out;
  size_t piece = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c != '{' && c != '}') {
      out[piece] += c;
    } else if (i + 1 < text.size() && text[i + 1] == c) {
      out[piece] += text[i++];
    } else {
      const size_t end = text.find('}', i);
      if (c == '}' || end == text.npos) return std::nullopt;
      const std::string_view name = text.substr(i + 1, end - i - 1);
      if (const auto known = kKnown.find(name); known != kKnown.end()) {
        out[piece] += known->second;
      } else if (name == split_at && piece == 0) {
        piece = 1;
      } else {
        return std::nullopt;
      }
      i = end;
    }
  }
  if (piece == 0) return std::nullopt;
  return out;
}

std::string read_bounded(const fs::path& file) {
  const uintmax_t size = fs::file_size(file);
  if (size > kMaxFileBytes)
    fail(ErrorCode::kInvalidArgument, "{} has {} bytes, a file of prose blocks at most {}", file.string(), size,
         kMaxFileBytes);
  return read_file(file);
}

}  // namespace

std::string sha256_hex(std::string_view bytes) {
  std::array<char, SHA256_DIGEST_STRING_LENGTH> hex;
  SHA256Data(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), hex.data());
  return hex.data();
}

ProseBlocks::ProseBlocks() {
  for (Entry& entry : entries_) entry.problem = "no model directory and no file of prose blocks was named";
}

ProseBlocks ProseBlocks::of_model(const fs::path& model_dir, const ProseHashes& expected) {
  ProseBlocks blocks(expected);
  const fs::path file = path_inside(model_dir, "encoding/encoding_dsv4.py");
  if (fs::is_regular_file(file)) {
    blocks.accept_program(read_bounded(file), file.string());
  } else {
    for (Entry& entry : blocks.entries_)
      entry.problem = fmt::format(
          "{} is not there; copy the folder encoding/ of the released model to its place, or name a file of prose "
          "blocks "
          "(data.prose of a run, --prose of a command)",
          file.string());
  }
  return blocks;
}

ProseBlocks ProseBlocks::read(const fs::path& file, const ProseHashes& expected) {
  if (!fs::is_regular_file(file)) fail(ErrorCode::kNotFound, "the file of prose blocks {} is not there", file.string());
  ProseBlocks blocks(expected);
  const std::string contents = read_bounded(file);
  if (file.extension() == ".py") {
    blocks.accept_program(contents, file.string());
  } else {
    blocks.accept_json(contents, file.string());
  }
  bool has_any = false;
  for (const Entry& entry : blocks.entries_) {
    if (entry.is_other_text) fail(ErrorCode::kUnsupported, "{}", entry.problem);
    has_any = has_any || !entry.text.empty();
  }
  if (!has_any) fail(ErrorCode::kInvalidArgument, "{} holds none of the prose blocks {}", file.string(), known_names());
  return blocks;
}

const std::string* ProseBlocks::find(ProseBlock block) const {
  const Entry& entry = entries_[static_cast<size_t>(block)];
  return entry.text.empty() ? nullptr : &entry.text;
}

const std::string& ProseBlocks::get(ProseBlock block, std::string_view origin) const {
  const Entry& entry = entries_[static_cast<size_t>(block)];
  if (entry.text.empty())
    fail(entry.is_other_text ? ErrorCode::kUnsupported : ErrorCode::kNotFound,
         "{}: the conversation needs the model's prose block \"{}\": {}", origin,
         kProseBlockNames[static_cast<size_t>(block)], entry.problem);
  return entry.text;
}

void ProseBlocks::accept(ProseBlock block, std::string text, const std::string& where) {
  const auto index = static_cast<size_t>(block);
  Entry& entry = entries_[index];
  const std::string hash = sha256_hex(text);
  if (hash == expected_[index]) {
    entry.text = std::move(text);
    return;
  }
  entry.is_other_text = true;
  entry.problem = fmt::format(
      "\"{}\" in {} is not the preview models' text: its SHA-256 is {}, theirs is {}. The -0731 "
      "release's program, for one, has other texts, which are not supported",
      kProseBlockNames[index], where, hash, expected_[index]);
}

void ProseBlocks::accept_program(std::string_view program, const std::string& where) {
  const auto constants = read_python_strings(program);
  const auto constant = [&](const std::string& name, std::initializer_list<ProseBlock> blocks) {
    const auto found = constants.find(name);
    for (const ProseBlock block : blocks)
      entries_[static_cast<size_t>(block)].problem =
          found == constants.end() ? fmt::format("{} has no string constant {}", where, name)
                                   : fmt::format("{} in {} is not the template that was expected", name, where);
    return found == constants.end() ? nullptr : &found->second;
  };
  if (const std::string* text = constant("REASONING_EFFORT_MAX", {ProseBlock::kEffortMax}))
    accept(ProseBlock::kEffortMax, *text, where);
  if (const std::string* text = constant("TOOLS_TEMPLATE", {ProseBlock::kToolsBefore, ProseBlock::kToolsAfter})) {
    if (auto pieces = fill(*text, "tool_schemas")) {
      accept(ProseBlock::kToolsBefore, std::move((*pieces)[0]), where);
      accept(ProseBlock::kToolsAfter, std::move((*pieces)[1]), where);
    }
  }
  if (const std::string* text = constant("response_format_template", {ProseBlock::kResponseFormat})) {
    auto pieces = fill(*text, "schema");
    if (pieces && (*pieces)[1].empty()) accept(ProseBlock::kResponseFormat, std::move((*pieces)[0]), where);
  }
}

void ProseBlocks::accept_json(std::string_view text, const std::string& where) {
  const auto object = parse_json<nlohmann::ordered_json>(text, where);
  if (!object.is_object()) fail(ErrorCode::kCorrupt, "{} is not a JSON object", where);
  for (Entry& entry : entries_) entry.problem = where + " does not have it";
  for (const auto& [name, value] : object.items()) {
    size_t index = 0;
    while (index < kNumProseBlocks && kProseBlockNames[index] != name) ++index;
    if (index == kNumProseBlocks)
      fail(ErrorCode::kInvalidArgument, "{}: \"{}\" is no prose block; known are {}", where, name, known_names());
    if (!value.is_string()) fail(ErrorCode::kCorrupt, "{}: \"{}\" is not a string", where, name);
    accept(static_cast<ProseBlock>(index), value.template get<std::string>(), where);
  }
}

}  // namespace temper::data

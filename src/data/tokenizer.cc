#include "data/tokenizer.h"

#include <simdjson.h>

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/path_inside.h"
#include "data/byte_alphabet.h"

namespace temper::data {
namespace {

int64_t count_ids(const TokenizerSpec& spec) {
  int64_t largest = -1;
  for (const auto& [token, id] : spec.vocab) largest = std::max<int64_t>(largest, id);
  for (const AddedToken& token : spec.added) largest = std::max<int64_t>(largest, token.id);
  return largest + 1;
}

BytePairEncoder make_merger(const TokenizerSpec& spec) {
  std::vector<std::string> bytes(static_cast<size_t>(count_ids(spec)));
  std::array<int32_t, 256> byte_ids{};
  for (const auto& [token, id] : spec.vocab) {
    auto meaning = unspell_bytes(token);
    if (!meaning) continue;  // an added token that is also in the vocabulary; text never becomes it
    if (meaning->size() == 1) byte_ids[static_cast<uint8_t>((*meaning)[0])] = id;
    bytes[static_cast<size_t>(id)] = std::move(*meaning);
  }
  return BytePairEncoder(byte_ids, spec.merges, std::move(bytes), spec.ignore_merges);
}

}  // namespace

Tokenizer::Tokenizer(const TokenizerSpec& spec)
    : splitter_(spec.split_patterns), merger_(make_merger(spec)), bytes_(static_cast<size_t>(count_ids(spec))) {
  special_.resize(bytes_.size());
  for (const auto& [token, id] : spec.vocab) {
    std::string meaning = unspell_bytes(token).value_or(token);
    text_ids_.emplace(meaning, id);
    bytes_[static_cast<size_t>(id)] = std::move(meaning);
  }
  for (const AddedToken& token : spec.added) {
    (token.normalized ? normalized_added_ : plain_added_).add(token.content, token.id);
    added_ids_[token.content] = token.id;
    bytes_[static_cast<size_t>(token.id)] = token.content;
    special_[static_cast<size_t>(token.id)] = token.special;
  }
}

Tokenizer Tokenizer::load(const std::filesystem::path& path) {
  return Tokenizer(
      read_tokenizer_file(std::filesystem::is_directory(path) ? path_inside(path, "tokenizer.json") : path));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool parse_special) const {
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3 + 1);
  if (!parse_special) {
    encode_stretch(text, ids);
    return ids;
  }
  std::vector<AddedTokenFinder::Stretch> outer, inner;
  plain_added_.cut(text, outer);
  for (const auto& stretch : outer) {
    inner.clear();
    if (stretch.id >= 0) {
      ids.push_back(stretch.id);
    } else {
      normalized_added_.cut(stretch.text, inner);
    }
    for (const auto& part : inner) {
      if (part.id >= 0) {
        ids.push_back(part.id);
      } else {
        encode_stretch(part.text, ids);
      }
    }
  }
  return ids;
}

void Tokenizer::encode_stretch(std::string_view text, std::vector<int32_t>& ids) const {
  if (simdjson::validate_utf8(text.data(), text.size())) return encode_valid(text, ids);
  size_t begin = 0;
  while (begin < text.size()) {
    size_t end = begin;
    while (const int64_t length = utf8_length(text.substr(end))) end += static_cast<size_t>(length);
    encode_valid(text.substr(begin, end - begin), ids);
    begin = end;
    while (end < text.size() && utf8_length(text.substr(end)) == 0) ++end;
    merger_.encode(text.substr(begin, end - begin), ids);
    begin = end;
  }
}

void Tokenizer::encode_valid(std::string_view text, std::vector<int32_t>& ids) const {
  std::vector<std::string_view> pieces;
  splitter_.split(text, pieces);
  for (const std::string_view piece : pieces) merger_.encode(piece, ids);
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool keep_special) const {
  std::string out;
  for (const int32_t id : ids) {
    const std::string& bytes = token_bytes(id);
    if (keep_special || !special_[static_cast<size_t>(id)]) out += bytes;
  }
  return out;
}

std::optional<int32_t> Tokenizer::token_id(std::string_view token) const {
  const std::string key(token);
  if (const auto found = added_ids_.find(key); found != added_ids_.end()) return found->second;
  if (const auto found = text_ids_.find(key); found != text_ids_.end()) return found->second;
  return std::nullopt;
}

const std::string& Tokenizer::token_bytes(int32_t id) const {
  if (id < 0 || id >= vocab_size())
    fail(ErrorCode::kInvalidArgument, "token id {} is outside the tokenizer's vocabulary of {} ids", id, vocab_size());
  return bytes_[static_cast<size_t>(id)];
}

}  // namespace temper::data

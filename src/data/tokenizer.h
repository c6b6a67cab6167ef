// Text to token ids and back, exactly as the tokenizer.json of a model says.
//
// Order of work (architecture page 11.1): added tokens are cut out, the stretches between them are split by the file's
// patterns, each piece becomes bytes, and pairs of bytes are merged by rank. Equal to Hugging Face
// tokenizers' encode(text, add_special_tokens=False) on every valid UTF-8 text. Bytes that are not UTF-8 stay bytes:
// each run of them is a piece of its own, so decode(encode(x, false)) == x for any x.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/added_tokens.h"
#include "data/bpe.h"
#include "data/split.h"
#include "data/tokenizer_file.h"

namespace temper::data {

// Immutable: every const member may be called from many threads.
class Tokenizer {
 public:
  // The spec must be checked, as read_tokenizer_file does, but for its patterns, which are compiled here.
  explicit Tokenizer(const TokenizerSpec& spec);

  // Reads tokenizer.json, or DIR/tokenizer.json when path is a directory. Refuses what read_tokenizer_file refuses.
  static Tokenizer load(const std::filesystem::path& path);

  // parse_special = false reads the texts of added tokens as ordinary text: for content that others wrote.
  std::vector<int32_t> encode(std::string_view text, bool parse_special = true) const;

  // The bytes of the tokens, joined; perhaps not UTF-8 when a character is cut. keep_special = false leaves out the
  // added tokens that the file calls special. Refuses (kInvalidArgument) an id outside [0, vocab_size); an unused id is
  // "".
  std::string decode(std::span<const int32_t> ids, bool keep_special = true) const;

  // Largest id + 1.
  int64_t vocab_size() const { return static_cast<int64_t>(bytes_.size()); }

  // Id of an added token by its text, or else of the token that stands for exactly these bytes.
  std::optional<int32_t> token_id(std::string_view token) const;

  // The added tokens, special or not, by their texts.
  const std::unordered_map<std::string, int32_t>& added_tokens() const { return added_ids_; }

  // What an id stands for. Refuses like decode.
  const std::string& token_bytes(int32_t id) const;

 private:
  void encode_stretch(std::string_view text, std::vector<int32_t>& ids) const;
  void encode_valid(std::string_view text, std::vector<int32_t>& ids) const;

  AddedTokenFinder plain_added_, normalized_added_;
  Splitter splitter_;
  BytePairEncoder merger_;
  std::vector<std::string> bytes_;  // by id
  std::vector<bool> special_;       // by id
  std::unordered_map<std::string, int32_t> added_ids_, text_ids_;
};

}  // namespace temper::data

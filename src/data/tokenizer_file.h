// The file format `tokenizer.json` of Hugging Face tokenizers, as far as byte-level BPE uses it.
//
// UTF-8 JSON, one object. Read:
//   added_tokens[]   {id, content, special, normalized, single_word, lstrip, rstrip}; the last three must be false
//   normalizer       null or a Sequence of nothing
//   pre_tokenizer    a component or a Sequence of: Split (pattern {"Regex"} or {"String"}, behavior "Isolated"), and
//                    at the end ByteLevel (add_prefix_space false; use_regex true adds GPT-2's pattern)
//   decoder          ByteLevel
//   model            type "BPE", vocab {spelling: id}, merges ["a b", ...] or [["a", "b"], ...], ignore_merges;
//                    dropout, continuing_subword_prefix and end_of_word_suffix must be absent or empty. unk_token,
//                    fuse_unk and byte_fallback have no effect, as every byte must have its token
// Not used: version, truncation, padding (a request of one call, not of the tokenizer) and post_processor (tokens that
// it would add are written by whoever renders the text). Anything else is refused by name. Bounds: an id is below the
// number of bytes of the file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "data/bpe.h"

namespace temper::data {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = true;
  bool normalized = false;  // true: looked for after, and only between, those that are not
};

struct TokenizerSpec {
  std::vector<std::pair<std::string, int32_t>> vocab;  // spelling in the byte alphabet, id
  std::vector<Merge> merges;                           // by rank
  std::vector<AddedToken> added;
  std::vector<std::string> split_patterns;
  bool ignore_merges = false;
};

// Reads and checks a file. Refuses: kNotFound, kIo; kCorrupt if it is not what the format promises (not JSON, a merge
// of tokens that are not in the vocabulary, an id twice, a byte without a token); kUnsupported, naming the component.
TokenizerSpec read_tokenizer_file(const std::filesystem::path& path);

// The same from the file's text; `origin` stands for the file in messages.
TokenizerSpec parse_tokenizer(const std::string& text, const std::string& origin);

// The file's text, in the layout that Hugging Face tokenizers write (merges as pairs).
std::string tokenizer_file_text(const TokenizerSpec& spec);

}  // namespace temper::data

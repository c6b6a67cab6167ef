// A tokenizer.json whose dull parts are given (a vocabulary of the 256 bytes) and whose parts are the lines of the
// input: added_tokens, pre_tokenizer, further tokens of the vocabulary, merges; what follows is text to encode. An
// input that begins with '{' is the whole file. An accepted tokenizer reads back equal from what we write, and encodes
// any text so that it decodes to the same bytes.
#include <string>

#include "data/byte_alphabet.h"
#include "data/tokenizer.h"
#include "data/tokenizer_file.h"
#include "fuzz.h"

namespace temper::data {
namespace {

const std::string& byte_vocabulary() {
  static const std::string text = [] {
    std::string out;
    for (int byte = 0; byte < 256; ++byte) {
      const std::string spelling = spell_byte(static_cast<uint8_t>(byte));
      out += fmt::format("{}\"{}{}\":{}", byte > 0 ? "," : "", spelling == "\"" || spelling == "\\" ? "\\" : "",
                         spelling, byte);
    }
    return out;
  }();
  return text;
}

std::string make_file(std::string_view& text) {
  const std::string_view added = fuzz::take_until(text, '\n'), pre_tokenizer = fuzz::take_until(text, '\n'),
                         vocabulary = fuzz::take_until(text, '\n'), merges = fuzz::take_until(text, '\n');
  return fmt::format(
      R"({{"added_tokens":{},"pre_tokenizer":{},"decoder":{{"type":"ByteLevel"}},"model":{{"vocab":{{{}{}}},"merges":{}}}}})",
      added, pre_tokenizer, byte_vocabulary(), vocabulary, merges);
}

void check_same(const TokenizerSpec& a, const TokenizerSpec& b) {
  CHECK(a.vocab == b.vocab && a.split_patterns == b.split_patterns && a.ignore_merges == b.ignore_merges);
  CHECK(a.merges.size() == b.merges.size() && a.added.size() == b.added.size());
  for (size_t i = 0; i < a.merges.size(); ++i)
    CHECK(a.merges[i].left == b.merges[i].left && a.merges[i].right == b.merges[i].right, i);
  for (size_t i = 0; i < a.added.size(); ++i)
    CHECK(a.added[i].id == b.added[i].id && a.added[i].content == b.added[i].content, i);
}

void check_encoding(TokenizerSpec spec, std::string_view text) {
  // Patterns that backtrack without end are refused after ten million steps; here sooner.
  for (std::string& pattern : spec.split_patterns) pattern.insert(0, "(*LIMIT_MATCH=10000)");
  const Tokenizer tokenizer(spec);
  for (const auto& [token, id] : spec.vocab) CHECK(id >= 0 && id < tokenizer.vocab_size(), id);
  for (const bool parse_special : {false, true}) {
    const auto ids = tokenizer.encode(text, parse_special);
    const std::string decoded = tokenizer.decode(ids);
    // An added token may take the id of a token of the vocabulary that means other bytes.
    if (spec.added.empty()) CHECK(decoded == text, decoded, text);
  }
}

void check(std::string_view input) {
  const std::string file = input.starts_with('{') ? std::string(std::exchange(input, {})) : make_file(input);
  fuzz::accepts([&] {
    const TokenizerSpec spec = parse_tokenizer(file, "fuzz");
    check_same(spec, parse_tokenizer(tokenizer_file_text(spec), "written"));
    check_encoding(spec, input);
  });
}

}  // namespace
}  // namespace temper::data

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  temper::data::check(temper::fuzz::as_text(data, size));
  return 0;
}

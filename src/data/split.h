// Cuts text into the pieces within which byte pairs may merge: the Split components of a tokenizer.json.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace temper::data {

// The three patterns of DeepSeek-V3 and V4 (architecture page 11.1), in order.
const std::vector<std::string>& deepseek_split_patterns();

// The pattern of GPT-2, which a ByteLevel component with use_regex = true applies.
const std::string& gpt2_split_pattern();

// A sequence of patterns. Each is applied to every piece that the one before left, and cuts it at the borders of its
// matches; matches and the text between them both stay ("Isolated"). Look-around never sees beyond the piece.
// Patterns are compiled by PCRE2 with UTF, Unicode properties and JIT. \s and \S are read as the Unicode property
// White_Space, as the regex engine of Hugging Face tokenizers reads them (PCRE2's own \s also has U+180E).
// Immutable after construction: split() may be called from many threads.
class Splitter {
 public:
  // Refuses (kCorrupt) a pattern that does not compile or has \C, naming it and the offset of the mistake.
  explicit Splitter(const std::vector<std::string>& patterns);
  Splitter(Splitter&&) noexcept;
  Splitter& operator=(Splitter&&) noexcept;
  ~Splitter();

  // Appends the pieces of `text`, in order and without gaps, as views into it. text must be valid UTF-8.
  // Refuses (kUnsupported) text on which a pattern exceeds PCRE2's match limit or 64 MiB.
  void split(std::string_view text, std::vector<std::string_view>& pieces) const;

 private:
  struct Pattern;
  std::vector<std::unique_ptr<Pattern>> patterns_;
};

}  // namespace temper::data

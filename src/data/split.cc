#define PCRE2_CODE_UNIT_WIDTH 8
#include "data/split.h"

#include <pcre2.h>

#include <utility>

#include "base/error.h"
#include "data/byte_alphabet.h"

namespace temper::data {
namespace {

constexpr size_t kMaxPatternBytes = 1 << 16;
constexpr uint32_t kMaxMatchKibibytes = 1 << 16;  // the library's own limit is 20 GB

// Replaces \s and \S by the property White_Space, inside and outside of classes alike.
std::string with_unicode_space(const std::string& pattern) {
  std::string out;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != '\\' || i + 1 == pattern.size()) {
      out += pattern[i];
      continue;
    }
    const char escaped = pattern[++i];
    if (escaped == 's') {
      out += "\\p{White_Space}";
    } else if (escaped == 'S') {
      out += "\\P{White_Space}";
    } else {
      out += '\\';
      out += escaped;
    }
  }
  return out;
}

std::string pcre2_message(int code) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(code, buffer, sizeof(buffer));
  return reinterpret_cast<const char*>(buffer);
}

struct Free {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

// Room for the work of one thread.
struct Match {
  std::unique_ptr<pcre2_match_data, Free> data{pcre2_match_data_create(1, nullptr)};
  std::unique_ptr<pcre2_match_context, Free> limits{pcre2_match_context_create(nullptr)};

  Match() {
    if (!data || !limits) fail(ErrorCode::kOutOfMemory, "no memory for the state of a regular expression");
    pcre2_set_heap_limit(limits.get(), kMaxMatchKibibytes);
  }
};

}  // namespace

const std::vector<std::string>& deepseek_split_patterns() {
  static const std::vector<std::string> patterns = {
      R"(\p{N}{1,3})",
      "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
      "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| "
      "?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
  };
  return patterns;
}

const std::string& gpt2_split_pattern() {
  static const std::string pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
  return pattern;
}

struct Splitter::Pattern {
  std::string source;
  pcre2_code* code = nullptr;

  explicit Pattern(const std::string& text) : source(text) {
    if (text.size() > kMaxPatternBytes)
      fail(ErrorCode::kUnsupported, "split pattern of {} bytes; at most {} are read", text.size(), kMaxPatternBytes);
    const std::string translated = with_unicode_space(text);
    int error = 0;
    PCRE2_SIZE offset = 0;
    // \C, a byte of a character, would leave pieces that are not UTF-8, which the matcher must never be given.
    code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                         PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
    if (!code)
      fail(ErrorCode::kCorrupt, "split pattern \"{}\" does not compile: {} at byte {} of its form \"{}\"", text,
           pcre2_message(error), offset, translated);
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // where there is no JIT, pcre2_match interprets
  }
  Pattern(const Pattern&) = delete;
  ~Pattern() { pcre2_code_free(code); }

  // Finds the next non-empty match at or after `start`; false if there is none.
  bool find(std::string_view text, size_t start, const Match& match, size_t& begin, size_t& end) const {
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    const uint32_t options = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY;
    int found = pcre2_match(code, subject, text.size(), start, options, match.data.get(), match.limits.get());
    if (found == PCRE2_ERROR_JIT_STACKLIMIT)
      found =
          pcre2_match(code, subject, text.size(), start, options | PCRE2_NO_JIT, match.data.get(), match.limits.get());
    if (found == PCRE2_ERROR_NOMATCH) return false;
    if (found < 0)
      fail(ErrorCode::kUnsupported, "split pattern \"{}\" fails on a text of {} bytes: {}", source, text.size(),
           pcre2_message(found));
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(match.data.get());
    begin = bounds[0], end = bounds[1];
    return begin >= start && end > begin && end <= text.size();  // \K may put the start anywhere
  }
};

Splitter::Splitter(const std::vector<std::string>& patterns) {
  for (const std::string& pattern : patterns) patterns_.push_back(std::make_unique<Pattern>(pattern));
}
Splitter::Splitter(Splitter&&) noexcept = default;
Splitter& Splitter::operator=(Splitter&&) noexcept = default;
Splitter::~Splitter() = default;

void Splitter::split(std::string_view text, std::vector<std::string_view>& pieces) const {
  if (text.empty()) return;
  std::vector<std::string_view> now = {text}, next;
  const Match match;
  for (const auto& pattern : patterns_) {
    next.clear();
    for (const std::string_view piece : now) {
      size_t done = 0, begin = 0, end = 0;
      while (done < piece.size() && pattern->find(piece, done, match, begin, end)) {
        if (begin > done) next.push_back(piece.substr(done, begin - done));
        next.push_back(piece.substr(begin, end - begin));
        done = end;
      }
      if (done < piece.size()) next.push_back(piece.substr(done));
    }
    now.swap(next);
  }
  pieces.insert(pieces.end(), now.begin(), now.end());
}

}  // namespace temper::data

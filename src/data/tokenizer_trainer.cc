#include "data/tokenizer_trainer.h"

#include <simdjson.h>

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <queue>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "base/file.h"
#include "data/byte_alphabet.h"

namespace temper::data {
namespace {

using Pair = std::pair<int32_t, int32_t>;

struct Word {
  std::vector<int32_t> ids;
  int64_t count;
};

struct PairHash {
  size_t operator()(const Pair& pair) const {
    return (static_cast<uint64_t>(pair.first) << 32 | static_cast<uint32_t>(pair.second)) * 0x9E3779B97F4A7C15u >> 16;
  }
};

// Pair counts under merging. Words that once held a pair are remembered; whether they still do is seen when it is
// merged.
class PairTable {
 public:
  explicit PairTable(std::vector<Word> words) : words_(std::move(words)) {
    for (size_t w = 0; w < words_.size(); ++w) {
      const Word& word = words_[w];
      for (size_t i = 0; i + 1 < word.ids.size(); ++i) add({word.ids[i], word.ids[i + 1]}, word.count, w);
    }
    for (const auto& [pair, entry] : pairs_) queue_.push({entry.count, pair});
  }

  // The most frequent pair and its count; count 0 if there is none.
  std::pair<Pair, int64_t> most_frequent() {
    while (!queue_.empty()) {
      const Candidate best = queue_.top();
      const int64_t count = pairs_.at(best.pair).count;
      if (count == best.count) return {best.pair, count};
      queue_.pop();
      if (count > 0) queue_.push({count, best.pair});
    }
    return {{}, 0};
  }

  void merge(Pair pair, int32_t merged) {
    const std::vector<size_t> holders = std::move(pairs_.at(pair).words);
    std::set<Pair> touched;
    for (const size_t w : holders) merge_in_word(w, pair, merged, touched);
    pairs_.at(pair).count = 0;
    for (const Pair& other : touched) queue_.push({pairs_.at(other).count, other});
  }

 private:
  struct Entry {
    int64_t count = 0;
    std::vector<size_t> words;
  };
  struct Candidate {
    int64_t count;
    Pair pair;
    bool operator<(const Candidate& other) const {
      return count != other.count ? count < other.count : pair > other.pair;
    }
  };

  void add(Pair pair, int64_t count, size_t word) {
    Entry& entry = pairs_[pair];
    entry.count += count;
    if (entry.words.empty() || entry.words.back() != word) entry.words.push_back(word);
  }

  void merge_in_word(size_t w, Pair pair, int32_t merged, std::set<Pair>& touched) {
    Word& word = words_[w];
    std::vector<int32_t>& ids = word.ids;
    size_t out = 0;
    for (size_t i = 0; i < ids.size(); ++i, ++out) {
      if (i + 1 >= ids.size() || Pair{ids[i], ids[i + 1]} != pair) {
        ids[out] = ids[i];
        continue;
      }
      if (out > 0) {
        pairs_.at({ids[out - 1], ids[i]}).count -= word.count;
        add({ids[out - 1], merged}, word.count, w);
        touched.insert({ids[out - 1], merged});
      }
      if (i + 2 < ids.size()) {
        pairs_.at({ids[i + 1], ids[i + 2]}).count -= word.count;
        add({merged, ids[i + 2]}, word.count, w);
        touched.insert({merged, ids[i + 2]});
      }
      ids[out] = merged;
      ++i;
    }
    ids.resize(out);
  }

  std::vector<Word> words_;
  std::unordered_map<Pair, Entry, PairHash> pairs_;
  std::priority_queue<Candidate> queue_;
};

std::vector<Word> count_words(std::span<const std::string_view> texts, const TrainerOptions& options,
                              const std::array<int32_t, 256>& byte_ids) {
  const Splitter splitter(options.split_patterns);
  std::unordered_map<std::string_view, int64_t> counts;
  std::vector<std::string_view> pieces;
  for (size_t i = 0; i < texts.size(); ++i) {
    if (!simdjson::validate_utf8(texts[i].data(), texts[i].size()))
      fail(ErrorCode::kInvalidArgument, "cannot train a tokenizer: text {} of {} is not UTF-8", i, texts.size());
    pieces.clear();
    splitter.split(texts[i], pieces);
    for (const std::string_view piece : pieces) ++counts[piece];
  }
  if (counts.empty()) fail(ErrorCode::kInvalidArgument, "cannot train a tokenizer: {} texts, all empty", texts.size());
  std::vector<Word> words;
  for (const auto& [piece, count] : counts) {
    Word word{{}, count};
    for (const char byte : piece) word.ids.push_back(byte_ids[static_cast<uint8_t>(byte)]);
    words.push_back(std::move(word));
  }
  return words;
}

void add_special_tokens(const TrainerOptions& options, TokenizerSpec& spec) {
  std::unordered_set<std::string_view> seen;
  for (const std::string& text : options.special_tokens) {
    if (text.empty() || !seen.insert(text).second)
      fail(ErrorCode::kInvalidArgument, "cannot train a tokenizer: special token \"{}\" is empty or given twice", text);
    const auto id = static_cast<int32_t>(spec.added.size());
    const bool special = spec.added.size() < kNumSilentTokens;
    spec.added.push_back({id, text, special, !special});
    spec.vocab.emplace_back(text, id);
  }
}

}  // namespace

TokenizerSpec train_tokenizer(std::span<const std::string_view> texts, const TrainerOptions& options) {
  const auto smallest = static_cast<int64_t>(options.special_tokens.size()) + 256;
  if (options.vocab_size < smallest || options.vocab_size > INT32_MAX)
    fail(ErrorCode::kInvalidArgument,
         "cannot train a tokenizer of {} tokens: {} special tokens and 256 bytes need at least {}", options.vocab_size,
         options.special_tokens.size(), smallest);
  TokenizerSpec spec;
  spec.split_patterns = options.split_patterns;
  add_special_tokens(options, spec);
  std::map<std::string, int> alphabet;  // UTF-8 sorts like code points
  for (int byte = 0; byte < 256; ++byte) alphabet.emplace(spell_byte(static_cast<uint8_t>(byte)), byte);
  std::array<int32_t, 256> byte_ids{};
  std::unordered_map<std::string, int32_t> ids;
  for (const auto& [token, id] : spec.vocab) ids.emplace(token, id);
  for (const auto& [token, byte] : alphabet) {
    if (ids.contains(token)) fail(ErrorCode::kInvalidArgument, "special token \"{}\" is a single byte", token);
    const auto id = static_cast<int32_t>(spec.vocab.size());
    byte_ids[static_cast<size_t>(byte)] = id;
    ids.emplace(token, id);
    spec.vocab.emplace_back(token, id);
  }
  PairTable table(count_words(texts, options, byte_ids));
  while (static_cast<int64_t>(spec.vocab.size()) < options.vocab_size) {
    const auto [pair, count] = table.most_frequent();
    if (count < std::max<int64_t>(options.min_count, 1)) break;
    const std::string token =
        spec.vocab[static_cast<size_t>(pair.first)].first + spec.vocab[static_cast<size_t>(pair.second)].first;
    // Two pairs may spell the same token; it keeps one id.
    const auto [place, is_new] = ids.try_emplace(token, static_cast<int32_t>(spec.vocab.size()));
    if (is_new) spec.vocab.emplace_back(token, place->second);
    spec.merges.push_back({pair.first, pair.second, place->second});
    table.merge(pair, place->second);
  }
  return spec;
}

void write_tokenizer(const std::filesystem::path& directory, const TokenizerSpec& spec) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) fail(ErrorCode::kIo, "cannot create {}: {}", directory.string(), error.message());
  write_file_atomically(directory / "tokenizer.json", tokenizer_file_text(spec));
  const nlohmann::ordered_json config = {{"add_bos_token", false},
                                         {"add_eos_token", false},
                                         {"bos_token", std::string(kBos)},
                                         {"clean_up_tokenization_spaces", false},
                                         {"eos_token", std::string(kEos)},
                                         {"model_max_length", 1048576},
                                         {"pad_token", std::string(kEos)},
                                         {"unk_token", nullptr},
                                         {"tokenizer_class", "PreTrainedTokenizerFast"}};
  write_file_atomically(directory / "tokenizer_config.json", config.dump(2) + "\n");
}

}  // namespace temper::data

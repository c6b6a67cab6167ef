#include "data/demo_data.h"

#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "data/hash.h"
#include "data/tokenizer_trainer.h"

namespace temper::data {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kHeldoutModulus = 50;
// More than the phones need: training ends when every phone is one token.
constexpr int64_t kMaxVocab = 384;

struct Entry {
  std::string word, phones;
};

// Calls visit(line, number) for each line; numbers from 1.
template <class Visit>
void for_each_line(std::string_view text, Visit&& visit) {
  for (int64_t number = 1; !text.empty(); ++number) {
    const size_t end = text.find('\n');
    visit(text.substr(0, end), number);
    text.remove_prefix(end == text.npos ? text.size() : end + 1);
  }
}

std::string run_bible(const std::string& command) {
  FILE* pipe = ::popen((command + " 2>/dev/null").c_str(), "r");
  if (!pipe) fail(ErrorCode::kIo, "cannot run `{}`", command);
  std::string out;
  std::array<char, 65536> buffer;
  while (const size_t count = std::fread(buffer.data(), 1, buffer.size(), pipe)) out.append(buffer.data(), count);
  const int status = ::pclose(pipe);
  if (status != 0 || out.empty())
    fail(ErrorCode::kNotFound,
         "`{}` printed {} bytes and ended with status {}; the King James Bible comes with: apt-get install bible-kjv "
         "bible-kjv-text",
         command, out.size(), WIFEXITED(status) ? WEXITSTATUS(status) : -1);
  return out;
}

// "Ge1:1 In the beginning" -> ("Ge1", "In the beginning").
std::pair<std::string_view, std::string_view> parse_verse(std::string_view line, int64_t number) {
  const size_t colon = line.find(':'), space = line.find(' ');
  const auto is_digit = [](char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; };
  const bool is_verse = colon != line.npos && space != line.npos && colon + 1 < space && colon > 0 &&
                        is_digit(line[colon - 1]) && std::all_of(&line[colon + 1], &line[space], is_digit);
  if (!is_verse)
    fail(ErrorCode::kCorrupt, "line {} of the Bible, \"{}\", does not begin with a verse like \"Ge1:1 \"", number,
         line);
  return {line.substr(0, colon), line.substr(space + 1)};
}

std::string bible_lines(std::string_view bible, DemoReport& report) {
  std::string out, chapter, text;
  const auto finish = [&] {
    if (text.empty()) return;
    out += Json{{"text", text}}.dump() + "\n";
    ++report.num_chapters;
    report.num_bible_bytes += static_cast<int64_t>(text.size());
    text.clear();
  };
  for_each_line(bible, [&](std::string_view line, int64_t number) {
    const auto [chapter_here, verse] = parse_verse(line, number);
    if (chapter_here != chapter) {
      finish();
      chapter = chapter_here;
    }
    text.append(verse).append("\n");
  });
  finish();
  return out;
}

// ("word" nil (((w er d) 1))) -> word, "w er d".
Entry parse_entry(std::string_view line, const std::string& where) {
  const auto refuse = [&]() {
    fail(ErrorCode::kCorrupt, "{}: \"{}\" is not an entry of a Festival lexicon", where, line);
  };
  if (!line.starts_with("(\"") || !line.ends_with(")")) refuse();
  const size_t quote = line.find('"', 2), list = line.find('(', 2);
  if (quote == line.npos || list == line.npos || quote < 3 || list < quote) refuse();
  Entry entry{std::string(line.substr(2, quote - 2)), ""};
  bool in_phone = false;
  for (const char c : line.substr(list)) {
    const bool is_letter = c >= 'a' && c <= 'z';
    if (!is_letter && !std::isdigit(static_cast<unsigned char>(c)) && c != '(' && c != ')' && c != ' ') refuse();
    if (is_letter && !in_phone && !entry.phones.empty()) entry.phones += ' ';
    if (is_letter) entry.phones += c;
    in_phone = is_letter;
  }
  if (entry.phones.empty()) refuse();
  return entry;
}

std::vector<Entry> read_lexicon(const std::filesystem::path& path, DemoReport& report) {
  if (!std::filesystem::exists(path))
    fail(ErrorCode::kNotFound, "there is no {}; the CMU lexicon comes with: apt-get install festlex-cmu",
         path.string());
  const std::string text = read_file(path);
  std::vector<Entry> entries;
  std::unordered_set<std::string> seen;
  for_each_line(text, [&](std::string_view line, int64_t number) {
    if (line.empty() || line == "MNCL") return;  // the mark of a compiled lexicon, its first line
    Entry entry = parse_entry(line, fmt::format("{}:{}", path.string(), number));
    ++report.num_entries;
    if (seen.insert(entry.word).second) entries.push_back(std::move(entry));
  });
  return entries;
}

std::string pronounce_lines(const std::vector<Entry>& entries) {
  std::string out;
  for (const Entry& entry : entries) {
    const Json question = {{"role", "user"}, {"content", entry.word}};
    const Json answer = {{"role", "assistant"}, {"content", entry.phones}};
    out += Json{{"messages", Json::array({question, answer})}}.dump() + "\n";
  }
  return out;
}

}  // namespace

DemoReport prepare_demo(const std::filesystem::path& directory, const DemoSources& sources) {
  DemoReport report;
  const std::string bible = bible_lines(run_bible(sources.bible_command), report);
  std::vector<Entry> train = read_lexicon(sources.lexicon, report);
  std::vector<Entry> heldout;
  const auto is_heldout = [](const Entry& entry) { return fnv(entry.word) % kHeldoutModulus == 0; };
  std::copy_if(train.begin(), train.end(), std::back_inserter(heldout), is_heldout);
  std::erase_if(train, is_heldout);
  std::sort(heldout.begin(), heldout.end(), [](const Entry& a, const Entry& b) { return fnv(a.word) < fnv(b.word); });
  report.num_train_words = static_cast<int64_t>(train.size());
  report.num_heldout_words = static_cast<int64_t>(heldout.size());

  // Every phone behind a blank, and nothing else: merges of English letters would hide the spelling from the model.
  std::string phones;
  for (const Entry& entry : train) phones += " " + entry.phones;
  const std::string_view text = phones;
  TrainerOptions options;
  options.vocab_size = kMaxVocab;
  const TokenizerSpec tokenizer = train_tokenizer({&text, 1}, options);
  report.vocab_size = static_cast<int64_t>(tokenizer.vocab.size());

  write_tokenizer(directory / "tokenizer", tokenizer);
  write_file_atomically(directory / "bible.jsonl", bible);
  write_file_atomically(directory / "pronounce.train.jsonl", pronounce_lines(train));
  write_file_atomically(directory / "pronounce.heldout.jsonl", pronounce_lines(heldout));
  return report;
}

}  // namespace temper::data

#include "parallel/texts.h"

#include <fmt/format.h>

#include <cstring>
#include <exception>

#include "base/error.h"

namespace temper::parallel {
namespace {

using Words = std::vector<int32_t>;

View view_of(Words& words) { return {words.data(), DType::kI32, {static_cast<int64_t>(words.size())}}; }
View view_of(int64_t& number) { return {&number, DType::kI64, {1}}; }

Words room_for(int64_t num_bytes) { return Words(static_cast<size_t>((num_bytes + 3) / 4)); }

Words words_of(const std::string& text) {
  Words words = room_for(static_cast<int64_t>(text.size()));
  if (!text.empty()) std::memcpy(words.data(), text.data(), text.size());
  return words;
}

std::string text_of(const Words& words, int64_t num_bytes) {
  return {reinterpret_cast<const char*>(words.data()), static_cast<size_t>(num_bytes)};
}

}  // namespace

std::string tell_all(comm::Comm* ranks, const std::string& text, int64_t from) {
  if (comm::group_size(ranks) == 1) return text;
  int64_t num_bytes = ranks->rank() == from ? static_cast<int64_t>(text.size()) : 0;
  ranks->all_reduce(nullptr, view_of(num_bytes), comm::Reduce::kMax, {"length of a text"});
  if (num_bytes == 0) return "";
  Words words = ranks->rank() == from ? words_of(text) : room_for(num_bytes);
  ranks->all_reduce(nullptr, view_of(words), comm::Reduce::kSum, {"text"});  // of the others: zeros
  return text_of(words, num_bytes);
}

std::string first_problem(comm::Comm* ranks, const std::string& problem) {
  if (comm::group_size(ranks) == 1) return problem;
  int64_t from_last = problem.empty() ? 0 : ranks->size() - ranks->rank();  // the first rank has the largest
  ranks->all_reduce(nullptr, view_of(from_last), comm::Reduce::kMax, {"problem"});
  if (from_last == 0) return "";
  const int64_t rank = ranks->size() - from_last;
  return fmt::format("rank {}: {}", rank, tell_all(ranks, problem, rank));
}

std::vector<std::string> gather_texts(comm::Comm* ranks, const std::string& text) {
  if (comm::group_size(ranks) == 1) return {text};
  if (ranks->rank() > 0) {
    auto num_bytes = static_cast<int64_t>(text.size());
    Words words = words_of(text);
    ranks->send(nullptr, view_of(num_bytes), 0, {"length of a text"});
    ranks->send(nullptr, view_of(words), 0, {"text"});
    return {};
  }
  std::vector<std::string> texts = {text};
  for (int64_t rank = 1; rank < ranks->size(); ++rank) {
    int64_t num_bytes = 0;
    ranks->recv(nullptr, view_of(num_bytes), rank, {"length of a text"});
    Words words = room_for(num_bytes);
    ranks->recv(nullptr, view_of(words), rank, {"text"});
    texts.push_back(text_of(words, num_bytes));
  }
  return texts;
}

void together(comm::Comm* ranks, const std::function<void()>& work) {
  if (comm::group_size(ranks) == 1) return work();
  std::string problem;
  try {
    work();
  } catch (const std::exception& error) {
    problem = error.what();
  }
  problem = first_problem(ranks, problem);
  if (!problem.empty()) fail(ErrorCode::kIo, "{}", problem);
}

}  // namespace temper::parallel

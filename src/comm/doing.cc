#include "comm/doing.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace temper::comm {
namespace {

template <size_t kSize>
void copy_text(char (&to)[kSize], std::string_view from) {
  const size_t n = std::min(from.size(), kSize - 1);
  std::memset(to, 0, kSize);
  std::memcpy(to, from.data(), n);
}

// Texts come from memory that a dying process may have been writing.
template <size_t kSize>
std::string_view view_text(const char (&text)[kSize]) {
  return {text, strnlen(text, kSize)};
}

std::string format_bytes(int64_t bytes) {
  if (bytes < 1024) return fmt::format("{} bytes", bytes);
  if (bytes < 1024 * 1024) return fmt::format("{:.1f} KiB", static_cast<double>(bytes) / 1024);
  return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1024 * 1024));
}

std::string place(const Doing& doing) {
  std::string text;
  if (doing.id.step >= 0) text = fmt::format("step {}", doing.id.step);
  if (doing.instruction[0] != 0) text += (text.empty() ? "" : ", ") + std::string(view_text(doing.instruction));
  return text.empty() ? "before the first step" : text;
}

std::string name_with_process(int64_t rank, const Doing& doing) {
  return doing.process == 0 ? fmt::format("rank {}", rank) : fmt::format("rank {} (process {})", rank, doing.process);
}

// The end of the chain of waits that begins at `from`; -1 where it runs in a circle.
int64_t last_awaited(int64_t from, std::span<const RankReport> ranks) {
  int64_t at = from;
  for (size_t i = 0; i <= ranks.size(); ++i) {
    const RankReport& r = ranks[static_cast<size_t>(at)];
    const int64_t next = r.doing.waits_for;
    if (r.life != Life::kAlive || r.doing.state != State::kWaiting || next < 0 ||
        next >= static_cast<int64_t>(ranks.size())) {
      return at;
    }
    at = next;
  }
  return -1;
}

// One line for ranks that do the same, with the longest time: a world may have a thousand ranks.
std::string list_all(std::span<const RankReport> ranks) {
  struct Line {
    std::string state;
    RankReport longest;
    std::vector<int64_t> ranks;
  };
  std::vector<Line> lines;
  for (size_t r = 0; r < ranks.size(); ++r) {
    RankReport timeless = ranks[r];
    timeless.seconds = 0;
    const std::string state = describe(timeless);
    auto line = std::ranges::find(lines, state, &Line::state);
    if (line == lines.end()) line = lines.insert(line, {state, ranks[r], {}});
    line->ranks.push_back(static_cast<int64_t>(r));
    if (ranks[r].seconds > line->longest.seconds) line->longest = ranks[r];
  }
  std::string text;
  for (const Line& line : lines) {
    text += fmt::format(
        "\n  {}: {}",
        line.ranks.size() == 1 ? name_with_process(line.ranks[0], line.longest.doing) : format_ranks(line.ranks),
        describe(line.longest));
  }
  return text;
}

}  // namespace

const char* op_name(Op op) {
  constexpr const char* kNames[] = {"none",           "split",        "barrier", "all_reduce", "all_gather",
                                    "reduce_scatter", "all_to_all_v", "send",    "recv"};
  return static_cast<size_t>(op) < std::size(kNames) ? kNames[static_cast<size_t>(op)] : "none";
}

void Doing::set_group(std::string_view text) { copy_text(group, text); }
void Doing::set_what(std::string_view text) { copy_text(what, text); }
void Doing::set_instruction(std::string_view text) { copy_text(instruction, text); }

uint64_t text_hash(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

std::string format_ranks(std::span<const int64_t> ranks) {
  constexpr size_t kShortestRun = 4;
  std::string text = ranks.size() == 1 ? "rank" : "ranks";
  for (size_t i = 0; i < ranks.size();) {
    size_t run = 1;
    while (i + run < ranks.size() && ranks[i + run] == ranks[i] + static_cast<int64_t>(run)) ++run;
    text += fmt::format("{}{}", i == 0 ? " " : ", ", ranks[i]);
    if (run >= kShortestRun) text += fmt::format("-{}", ranks[i + run - 1]);
    i += run >= kShortestRun ? run : 1;
  }
  return text;
}

std::string describe_call(const Doing& doing) {
  std::string text(view_text(doing.what));
  if (doing.id.layer >= 0) text += fmt::format(" of layer {}", doing.id.layer);
  text += fmt::format(" ({} in {}, call {}", op_name(doing.id.op), view_text(doing.group), doing.call);
  if (doing.id.dtype != DType::kNone) text += fmt::format(", {}", dtype_name(doing.id.dtype));
  if (doing.id.op == Op::kAllToAll) return text + fmt::format(", rows of {})", format_bytes(doing.id.num_bytes));
  if (doing.id.num_bytes > 0) text += ", " + format_bytes(doing.id.num_bytes);
  return text + ")";
}

std::string describe(const RankReport& report) {
  const Doing& doing = report.doing;
  const std::string since = fmt::format(", since {:.1f} s", report.seconds);
  switch (report.life) {
    case Life::kGone:
      return "gone; its last place: " + place(doing);
    case Life::kStopped:
      return "stopped by a signal: " + place(doing) + since;
    case Life::kSilent:
      return "silent: it does not answer (gone, stopped, or its machine is lost)";
    case Life::kAlive:
      break;
  }
  switch (doing.state) {
    case State::kComputing:
      return "computing: " + place(doing) + since;
    case State::kInCall:
      return "moving " + describe_call(doing) + ": " + place(doing) + since;
    case State::kWaiting:
      return fmt::format("waiting for rank {} in {}: {}{}", doing.waits_for, describe_call(doing), place(doing), since);
    case State::kLeft:
      return "finished; its last place: " + place(doing) + since;
  }
  return "unknown";
}

std::string explain_wait(int64_t me, std::span<const RankReport> ranks) {
  const int64_t culprit = last_awaited(me, ranks);
  const Doing& mine = ranks[static_cast<size_t>(me)].doing;
  std::vector<int64_t> waiting;
  for (size_t r = 0; r < ranks.size(); ++r) {
    const auto rank = static_cast<int64_t>(r);
    if (rank != culprit && last_awaited(rank, ranks) == culprit) waiting.push_back(rank);
  }
  if (culprit < 0) {
    return fmt::format("{} wait for one another, in different calls:{}", format_ranks(waiting), list_all(ranks));
  }
  const RankReport& stuck = ranks[static_cast<size_t>(culprit)];
  const bool computes = stuck.life == Life::kAlive && stuck.doing.state == State::kComputing;
  const std::string text =
      name_with_process(culprit, stuck.doing) + (computes ? " is stuck " : " is ") + describe(stuck);
  return text + fmt::format("; {} {} for it in {}:{}", format_ranks(waiting), waiting.size() == 1 ? "waits" : "wait",
                            describe_call(mine), list_all(ranks));
}

std::string explain_gone(int64_t rank, const RankReport& report) {
  return name_with_process(rank, report.doing) + " is " + describe(report);
}

std::string explain_mismatch(std::span<const int64_t> members, std::span<const Doing> doings) {
  std::string text;
  std::vector<bool> told(members.size(), false);
  for (size_t i = 0; i < members.size(); ++i) {
    if (told[i]) continue;
    std::vector<int64_t> same;
    for (size_t j = i; j < members.size(); ++j) {
      if (doings[j].id == doings[i].id) {
        told[j] = true;
        same.push_back(members[j]);
      }
    }
    text += fmt::format("{}{} came to {} at {}", text.empty() ? "" : " while ", format_ranks(same),
                        describe_call(doings[i]), place(doings[i]));
  }
  return "the ranks of a group came to different calls: " + text;
}

std::string explain_rows(int64_t sender, int64_t sent, int64_t receiver, int64_t expected, const Doing& receiving) {
  return fmt::format("rank {} sends {} rows to rank {}, which expects {}: {} at {}", sender, sent, receiver, expected,
                     describe_call(receiving), place(receiving));
}

bool is_same_message(const Identity& sent, const Identity& expected) {
  return sent.dtype == expected.dtype && sent.num_bytes == expected.num_bytes && sent.layer == expected.layer &&
         sent.hash_what == expected.hash_what;
}

std::string explain_message(int64_t receiver, const Doing& receiving, int64_t sender, const Doing& sent) {
  return fmt::format("rank {} came to {} at {}, but rank {} has sent it {} at {}", receiver, describe_call(receiving),
                     place(receiving), sender, describe_call(sent), place(sent));
}

}  // namespace temper::comm

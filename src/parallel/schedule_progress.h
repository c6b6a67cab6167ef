// How far the stages of a pipeline have come in their lists, and the messages between them: what the check and the
// simulation of a schedule have in common.
#pragma once

#include <fmt/format.h>

#include <string>
#include <vector>

#include "parallel/schedule.h"

namespace temper::parallel {

inline bool is_send(Action action) { return action == Action::kSendForward || action == Action::kSendBackward; }
inline bool is_receive(Action action) { return action == Action::kRecvForward || action == Action::kRecvBackward; }

// A message: the part that it goes to (forward) or comes from (backward), so that both ends name it alike.
struct Message {
  bool backward;
  int64_t micro_batch, part;
  bool operator==(const Message&) const = default;
};

// How far every stage has come, and the messages under way.
class Progress {
 public:
  explicit Progress(const PipelineLists& lists)
      : lists_(lists.stage_lists), position_(lists_.size(), 0), channels_(2 * lists_.size()) {}

  int64_t num_stages() const { return static_cast<int64_t>(lists_.size()); }
  bool at_end(int64_t stage) const { return position_[stage] == lists_[stage].size(); }
  const Instruction& next(int64_t stage) const { return lists_[stage][position_[stage]]; }
  void advance(int64_t stage) { ++position_[stage]; }

  Message message(int64_t stage, const Instruction& i) const {
    const int64_t part = i.chunk * num_stages() + stage;
    const bool backward = i.action == Action::kSendBackward || i.action == Action::kRecvBackward;
    const bool lower_end = i.action == Action::kSendForward || i.action == Action::kRecvBackward;
    return {backward, i.micro_batch, lower_end ? part + 1 : part};
  }
  // The other stage of a send or receive.
  int64_t peer(int64_t stage, Action action) const {
    const bool to_next = action == Action::kSendForward || action == Action::kRecvBackward;
    return (stage + (to_next ? 1 : num_stages() - 1)) % num_stages();
  }
  struct Sent {
    Message message;
    double time;
  };
  struct Channel {
    std::vector<Sent> sent;
    size_t num_received = 0;
    const Sent* next() const { return num_received < sent.size() ? &sent[num_received] : nullptr; }
  };
  // Into the stage, where the message arrives.
  Channel& channel(int64_t stage, bool backward) { return channels_[2 * stage + backward]; }

  // "stage 1, instruction 4 (forward of micro-batch 0)"
  std::string place(int64_t stage) const {
    return fmt::format("stage {}, instruction {} ({})", stage, position_[stage], describe(next(stage)));
  }
  // Where the first stages stand that have not come to their end; empty if all have.
  std::string who_waits() const {
    std::string words;
    int64_t num_named = 0;
    for (int64_t s = 0; s < num_stages(); ++s) {
      if (at_end(s) || ++num_named > 4) continue;
      words += fmt::format("{}{} waits for stage {}", words.empty() ? "" : "; ", place(s), peer(s, next(s).action));
    }
    return words;
  }

 private:
  const std::vector<std::vector<Instruction>>& lists_;
  std::vector<size_t> position_;
  std::vector<Channel> channels_;
};

// Runs all lists as far as they go; sends do not wait. execute(stage, instruction, arrival) is called for each one,
// with the time at which a received message arrived (0: none), and returns the time at which a sent one will. The order
// in which stages take turns does not change what anyone receives. Returns what is wrong; empty: all came to the end.
template <class Execute>
std::string run_all(Progress& progress, const Execute& execute) {
  std::vector<int64_t> ready(progress.num_stages());
  for (int64_t s = 0; s < progress.num_stages(); ++s) ready[s] = progress.num_stages() - 1 - s;
  while (!ready.empty()) {
    const int64_t stage = ready.back();
    ready.pop_back();
    for (; !progress.at_end(stage); progress.advance(stage)) {
      const Instruction& instruction = progress.next(stage);
      double arrival = 0;
      if (is_receive(instruction.action)) {
        const Message wanted = progress.message(stage, instruction);
        auto& channel = progress.channel(stage, wanted.backward);
        const auto* sent = channel.next();
        if (!sent) break;  // whoever sends it will wake this stage
        if (sent->message != wanted)
          return fmt::format("{}: the message that comes next is of micro-batch {}, part {}", progress.place(stage),
                             sent->message.micro_batch, sent->message.part);
        arrival = sent->time;
        ++channel.num_received;
      }
      const double time = execute(stage, instruction, arrival);
      if (!is_send(instruction.action)) continue;
      const Message message = progress.message(stage, instruction);
      const int64_t to = progress.peer(stage, instruction.action);
      progress.channel(to, message.backward).sent.push_back({message, time});
      ready.push_back(to);
    }
  }
  return progress.who_waits();
}

}  // namespace temper::parallel

#include "comm/mpi/node_watch.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "base/clock.h"

namespace temper::comm {
namespace {

constexpr auto kBetweenLooks = std::chrono::milliseconds(5);
constexpr double kSecondsForAnswers = 1, kSecondsToEnd = 0.5, kSecondsBetweenLooks = 0.1;

}  // namespace

NodeWatch::NodeWatch(MPI_Comm comm, std::vector<int64_t> here) : comm_(comm), here_(std::move(here)) {
  check_mpi(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "start");
  check_mpi(MPI_Comm_size(comm_, &world_size_), "start");
  thread_ = std::thread([this] { run(); });
}

NodeWatch::~NodeWatch() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void NodeWatch::attend(SharedRank* me) {
  std::lock_guard lock(mutex_);
  me_ = me;
}

std::vector<int64_t> NodeWatch::ranks_elsewhere() const {
  std::vector<int64_t> ranks;
  for (int64_t r = 0; r < world_size_; ++r) {
    if (std::ranges::find(here_, r) == here_.end()) ranks.push_back(r);
  }
  return ranks;
}

void NodeWatch::ask(std::span<RankReport> by_rank) {
  const std::vector<int64_t> elsewhere = ranks_elsewhere();
  for (const int64_t r : elsewhere) by_rank[static_cast<size_t>(r)].life = Life::kSilent;
  std::unique_lock lock(mutex_);
  answers_.clear();
  ask_ = true;
  changed_.notify_all();
  const auto heard = [&] {
    return std::ranges::all_of(elsewhere, [&](int64_t r) {
      return std::ranges::any_of(answers_, [&](const Entry& e) { return e.rank == r; });
    });
  };
  changed_.wait_for(lock, std::chrono::duration<double>(kSecondsForAnswers), heard);
  for (const Entry& e : answers_) {
    if (e.rank >= 0 && e.rank < std::ssize(by_rank)) by_rank[static_cast<size_t>(e.rank)] = e.report;
  }
}

void NodeWatch::tell(std::string_view verdict) {
  {
    std::lock_guard lock(mutex_);
    verdict_ = std::string(verdict);
  }
  changed_.notify_all();
}

void NodeWatch::run() {
  double stopped = 0;
  for (;;) {
    try {
      while (handle_one()) {
      }
      look_around();
      send_orders();
      if (under_way_.done()) letters_.clear();
    } catch (const std::exception&) {
      return;  // no more news; waits end by their deadlines
    }
    std::unique_lock lock(mutex_);
    if (stop_ && stopped == 0) stopped = now_seconds();
    if (stop_ && ((!verdict_ && under_way_.empty()) || now_seconds() - stopped > kSecondsToEnd)) return;
    changed_.wait_for(lock, kBetweenLooks, [&] { return ask_ || (stop_ && stopped == 0); });
  }
}

// Ranks elsewhere cannot see that one of this machine is gone.
void NodeWatch::look_around() {
  if (now_seconds() - last_look_ < kSecondsBetweenLooks) return;
  last_look_ = now_seconds();
  std::unique_lock lock(mutex_);
  SharedRank* const me = me_;
  lock.unlock();
  if (me == nullptr || me->failed()) return;
  const std::vector<RankReport> reports = me->block_reports();
  for (size_t i = 0; i < reports.size(); ++i) {
    if (reports[i].life == Life::kGone) me->post_verdict(explain_gone(here_[i], reports[i]));
  }
}

void NodeWatch::send_orders() {
  std::unique_lock lock(mutex_);
  const bool ask = std::exchange(ask_, false);
  const std::optional<std::string> verdict = std::exchange(verdict_, std::nullopt);
  lock.unlock();
  if (!ask && !verdict) return;
  std::string& letter = *letters_.emplace_back(std::make_unique<std::string>(verdict.value_or("")));
  for (const int64_t r : ranks_elsewhere()) {
    if (ask) under_way_.send(comm_, {r, asking_, sizeof asking_}, Tag::kAsk);
    if (verdict) under_way_.send(comm_, {r, letter.data(), std::ssize(letter)}, Tag::kVerdict);
  }
}

// Takes one letter, if there is one.
bool NodeWatch::handle_one() {
  int found = 0;
  MPI_Status status;
  check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, comm_, &found, &status), "news");
  if (found == 0) return false;
  int size = 0;
  check_mpi(MPI_Get_count(&status, MPI_BYTE, &size), "news");
  std::string letter(static_cast<size_t>(size), 0);
  check_mpi(MPI_Recv(letter.data(), size, MPI_BYTE, status.MPI_SOURCE, status.MPI_TAG, comm_, MPI_STATUS_IGNORE),
            "news");
  std::lock_guard lock(mutex_);
  switch (static_cast<Tag>(status.MPI_TAG)) {
    case Tag::kAsk: {
      if (me_ == nullptr) break;
      const std::vector<RankReport> reports = me_->block_reports();
      std::string& answer = *letters_.emplace_back(std::make_unique<std::string>(reports.size() * sizeof(Entry), 0));
      for (size_t i = 0; i < reports.size(); ++i) {
        const Entry entry{here_[i], reports[i]};
        std::memcpy(answer.data() + i * sizeof entry, &entry, sizeof entry);
      }
      under_way_.send(comm_, {status.MPI_SOURCE, answer.data(), std::ssize(answer)}, Tag::kAnswer);
      break;
    }
    case Tag::kAnswer:
      for (size_t at = 0; at + sizeof(Entry) <= letter.size(); at += sizeof(Entry)) {
        std::memcpy(static_cast<void*>(&answers_.emplace_back()), letter.data() + at, sizeof(Entry));
      }
      changed_.notify_all();
      break;
    case Tag::kVerdict:
      if (me_ != nullptr) me_->take_verdict(letter);
      break;
    default:
      break;
  }
  return true;
}

}  // namespace temper::comm

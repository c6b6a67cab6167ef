#include "base/thread.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/error.h"

namespace temper {
namespace {

thread_local bool inside_body = false;

// A job is published as one word: its number and its number of parts. Every part is claimed by an atomic exchange, by
// the worker of the same index or, if that one is late (asleep, or its core is busy with another process), by the
// caller after its own part: a short job never waits for a thread to wake up.
class Team {
 public:
  explicit Team(int size) : size_(size), claimed_(static_cast<size_t>(size)) {
    for (int i = 1; i < size; ++i) threads_.emplace_back([this, i] { work(i); });
  }
  ~Team() {
    stop_.store(true, std::memory_order_relaxed);
    publish(0);
    for (auto& thread : threads_) thread.join();
  }
  int size() const { return size_; }

  void run(int64_t count, int parts, const RangeBody& body) {
    std::lock_guard caller(call_mutex_);
    body_ = &body;
    count_ = count;
    error_ = nullptr;
    pending_.store(parts, std::memory_order_relaxed);
    const uint64_t job = publish(parts);
    for (int part = 0; part < parts; ++part) {
      if (claim(part, job)) run_part(part, parts);
    }
    for (int spins = 0; pending_.load(std::memory_order_acquire) != 0; ++spins) pause(spins);
    if (error_) std::rethrow_exception(error_);
  }

 private:
  static constexpr int kPartBits = 16;
  // A worker that has waited this long goes to sleep: long enough for the gaps between the ops of a step, short enough
  // not to cost a neighbour its core.
  static constexpr double kSpinSeconds = 200e-6;
  static constexpr int kSpinsBeforeYield = 4096;

  // Whoever waits longer than a fork usually takes offers its core to other threads, which may be those it waits for.
  static void pause(int spins) {
    if (spins > kSpinsBeforeYield) {
      sched_yield();
      return;
    }
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }

  uint64_t publish(int parts) {
    const uint64_t number = (job_.load(std::memory_order_relaxed) >> kPartBits) + 1;
    const uint64_t job = number << kPartBits | static_cast<uint64_t>(parts);
    // Sequentially consistent, as are the worker's steps to sleep: either it sees the job or we see it asleep.
    job_.store(job, std::memory_order_seq_cst);
    if (num_asleep_.load(std::memory_order_seq_cst) > 0) {
      { std::lock_guard lock(sleep_mutex_); }
      wake_.notify_all();
    }
    return job;
  }

  // Takes a part of a job, once. A thread that comes late with the word of a finished job finds the part claimed by
  // that job or a later one: it cannot take part in what it has not seen.
  bool claim(int part, uint64_t job) {
    auto& claimed = claimed_[static_cast<size_t>(part)];
    uint64_t last = claimed.load(std::memory_order_relaxed);
    return last < job && claimed.compare_exchange_strong(last, job, std::memory_order_acq_rel);
  }

  void run_part(int part, int parts) {
    inside_body = true;
    try {
      (*body_)(count_ * part / parts, count_ * (part + 1) / parts, part);
    } catch (...) {
      std::lock_guard lock(error_mutex_);
      if (!error_) error_ = std::current_exception();
    }
    inside_body = false;
    pending_.fetch_sub(1, std::memory_order_acq_rel);
  }

  uint64_t wait_for_job_after(uint64_t seen) {
    const double start = now_seconds();
    for (int spins = 1;; ++spins) {
      const uint64_t job = job_.load(std::memory_order_acquire);
      if (job != seen) return job;
      pause(spins);
      if (spins % 256 != 0 || now_seconds() - start < kSpinSeconds) continue;
      std::unique_lock lock(sleep_mutex_);
      num_asleep_.fetch_add(1, std::memory_order_seq_cst);
      wake_.wait(lock, [&] { return job_.load(std::memory_order_seq_cst) != seen; });
      num_asleep_.fetch_sub(1, std::memory_order_relaxed);
    }
  }

  void work(int part) {
    for (uint64_t job = 0;;) {
      job = wait_for_job_after(job);
      if (stop_.load(std::memory_order_relaxed)) return;
      const int parts = static_cast<int>(job & ((1u << kPartBits) - 1));
      if (part < parts && claim(part, job)) run_part(part, parts);
    }
  }

  const int size_;
  std::vector<std::thread> threads_;
  std::mutex call_mutex_, sleep_mutex_, error_mutex_;
  std::condition_variable wake_;
  alignas(64) std::atomic<uint64_t> job_{0};  // number << kPartBits | parts
  alignas(64) std::atomic<int> pending_{0};   // parts that are not done
  std::atomic<int> num_asleep_{0};
  std::atomic<bool> stop_{false};
  std::vector<std::atomic<uint64_t>> claimed_;  // the last job whose part of this index was taken
  const RangeBody* body_ = nullptr;
  int64_t count_ = 0;
  std::exception_ptr error_;
};

int default_size() {
  if (const int asked = num_threads_asked_for(); asked > 0) return asked;
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

std::unique_ptr<Team>& team() {
  static std::unique_ptr<Team> instance = std::make_unique<Team>(default_size());
  return instance;
}

}  // namespace

int num_threads_asked_for() {
  constexpr int kMost = 1024;
  const char* text = std::getenv("TEMPER_NUM_THREADS");
  if (!text) return 0;
  const std::string_view digits(text);
  int count = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), count);
  if (error != std::errc() || end != digits.data() + digits.size() || count < 1 || count > kMost)
    fail(ErrorCode::kInvalidArgument,
         "TEMPER_NUM_THREADS is \"{}\"; it must be a whole number from 1 to {}, or not be set", digits, kMost);
  return count;
}

int num_threads() { return team()->size(); }

void set_num_threads(int count) { team() = std::make_unique<Team>(std::max(1, count)); }

void parallel_for(int64_t count, int64_t grain, RangeBody body) {
  if (count <= 0) return;
  const int64_t most = inside_body ? 1 : (count + std::max<int64_t>(grain, 1) - 1) / std::max<int64_t>(grain, 1);
  const int parts = static_cast<int>(std::min<int64_t>(num_threads(), most));
  if (parts <= 1) {
    body(0, count, 0);
    return;
  }
  team()->run(count, parts, body);
}

}  // namespace temper

#include "base/thread.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/clock.h"

namespace temper {
namespace {

thread_local bool inside_body = false;

class Team {
 public:
  explicit Team(int size) : size_(size) {
    for (int i = 1; i < size; ++i) threads_.emplace_back([this, i] { work(i); });
  }
  ~Team() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
      epoch_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    for (auto& thread : threads_) thread.join();
  }
  int size() const { return size_; }

  void run(int64_t count, int parts, const std::function<void(int64_t, int64_t, int)>& body) {
    std::lock_guard caller(call_mutex_);
    body_ = &body;
    count_ = count;
    parts_ = parts;
    error_ = nullptr;
    pending_.store(size_ - 1, std::memory_order_relaxed);
    {
      std::lock_guard lock(mutex_);
      epoch_.fetch_add(1, std::memory_order_release);
    }
    if (num_asleep_.load(std::memory_order_acquire) > 0) wake_.notify_all();
    run_part(0);
    while (pending_.load(std::memory_order_acquire) != 0) pause();
    if (error_) std::rethrow_exception(error_);
  }

 private:
  // A worker that has waited this long goes to sleep: long enough for the gaps between the ops of a step, short enough
  // not to cost a neighbour its core.
  static constexpr double kSpinSeconds = 200e-6;

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }

  void run_part(int part) {
    if (part >= parts_) return;
    inside_body = true;
    try {
      (*body_)(count_ * part / parts_, count_ * (part + 1) / parts_, part);
    } catch (...) {
      std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
    }
    inside_body = false;
  }

  void work(int part) {
    uint64_t seen = 0;
    while (true) {
      const double start = now_seconds();
      int spins = 0;
      while (epoch_.load(std::memory_order_acquire) == seen) {
        pause();
        if (++spins % 256 == 0 && now_seconds() - start > kSpinSeconds) {
          std::unique_lock lock(mutex_);
          num_asleep_.fetch_add(1, std::memory_order_acq_rel);
          wake_.wait(lock, [&] { return epoch_.load(std::memory_order_acquire) != seen; });
          num_asleep_.fetch_sub(1, std::memory_order_acq_rel);
        }
      }
      seen = epoch_.load(std::memory_order_acquire);
      if (stop_) return;
      run_part(part);
      pending_.fetch_sub(1, std::memory_order_acq_rel);
    }
  }

  const int size_;
  std::vector<std::thread> threads_;
  std::mutex call_mutex_, mutex_;
  std::condition_variable wake_;
  std::atomic<uint64_t> epoch_{0};
  std::atomic<int> pending_{0}, num_asleep_{0};
  bool stop_ = false;
  const std::function<void(int64_t, int64_t, int)>* body_ = nullptr;
  int64_t count_ = 0;
  int parts_ = 0;
  std::exception_ptr error_;
};

int default_size() {
  if (const char* text = std::getenv("TEMPER_NUM_THREADS")) {
    if (const int count = std::atoi(text); count > 0) return count;
  }
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

std::unique_ptr<Team>& team() {
  static std::unique_ptr<Team> instance = std::make_unique<Team>(default_size());
  return instance;
}

}  // namespace

int num_threads() { return team()->size(); }

void set_num_threads(int count) { team() = std::make_unique<Team>(std::max(1, count)); }

void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t, int)>& body) {
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

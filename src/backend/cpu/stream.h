// Streams of the CPU. Ops are done when they return, by whoever calls them, so an ordinary stream has nothing to hold;
// a stream for communication is a queue with a thread of its own.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "backend/device.h"

namespace temper::backend {

class WorkQueue {
 public:
  WorkQueue();
  WorkQueue(const WorkQueue&) = delete;
  WorkQueue& operator=(const WorkQueue&) = delete;
  ~WorkQueue();  // when all is done

  void append(std::function<void()> work);
  int64_t num_appended() const;
  // The first so many. After one that throws, what follows is dropped.
  bool is_done(int64_t number) const;
  // Until they are done. Throws what work has thrown.
  void wait(int64_t number) const;

 private:
  void run();

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::deque<std::function<void()>> work_;  // by mutex_, as all that follows
  int64_t num_appended_ = 0, num_done_ = 0;
  bool is_to_end_ = false;
  std::exception_ptr error_;
  std::thread thread_;  // last: it uses the others
};

// Fills in what a device does with streams and events.
void add_streams(DeviceTable& table);

}  // namespace temper::backend

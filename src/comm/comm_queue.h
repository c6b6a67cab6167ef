// Collectives beside computation: a stream for communication, what is enqueued there, and waiting for it.
//
//   group.all_gather(queue.after(device, stream), all, mine, call);   // a group that only the queue's calls use
//   backend::Event* mark = queue.mark();
//   ... computation on `stream`, which touches neither all nor mine ...
//   queue.wait(device, stream, mark);                                 // what is enqueued later finds all whole
//
// One thread calls. What is enqueued runs in its order, the same on all ranks of a group.
#pragma once

#include <vector>

#include "backend/device.h"

namespace temper::comm {

class CommQueue {
 public:
  explicit CommQueue(const backend::DeviceTable& device);  // must outlive this
  CommQueue(const CommQueue&) = delete;
  CommQueue& operator=(const CommQueue&) = delete;
  // When what is under way is done; what it works on must still be there.
  ~CommQueue();

  // The stream for collectives, which begin when `computing` has passed what it has. device: that stream's own.
  backend::Stream* after(const backend::DeviceTable& device, backend::Stream* computing);
  // What has been enqueued until now; to be waited for once.
  backend::Event* mark();
  // What is enqueued on `computing` later begins after the mark. Throws what went wrong on the way.
  void wait(const backend::DeviceTable& device, backend::Stream* computing, backend::Event* mark);
  // For how long wait() has held up its callers.
  double wait_seconds() const { return wait_seconds_; }

 private:
  const backend::DeviceTable& device_;
  backend::Stream* const stream_;
  backend::Event* const computed_;
  std::vector<backend::Event*> events_, free_;
  double wait_seconds_ = 0;
};

}  // namespace temper::comm

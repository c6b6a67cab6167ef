#include "comm/comm_queue.h"

#include "base/clock.h"

namespace temper::comm {

CommQueue::CommQueue(const backend::DeviceTable& device)
    : device_(device), stream_(device.comm_stream_create()), computed_(device.event_create()) {}

CommQueue::~CommQueue() {
  device_.stream_destroy(stream_);
  device_.event_destroy(computed_);
  for (backend::Event* event : events_) device_.event_destroy(event);
}

backend::Stream* CommQueue::after(const backend::DeviceTable& device, backend::Stream* computing) {
  device.event_record(computing, computed_);
  device_.event_wait(stream_, computed_);
  return stream_;
}

backend::Event* CommQueue::mark() {
  if (free_.empty()) free_.push_back(events_.emplace_back(device_.event_create()));
  backend::Event* event = free_.back();
  free_.pop_back();
  device_.event_record(stream_, event);
  return event;
}

void CommQueue::wait(const backend::DeviceTable& device, backend::Stream* computing, backend::Event* mark) {
  const double start = now_seconds();
  device.event_wait(computing, mark);
  wait_seconds_ += now_seconds() - start;
  free_.push_back(mark);
}

}  // namespace temper::comm

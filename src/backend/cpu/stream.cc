#include "backend/cpu/stream.h"

#include <utility>

namespace temper::backend {

WorkQueue::WorkQueue() : thread_([this] { run(); }) {}

WorkQueue::~WorkQueue() {
  {
    std::lock_guard lock(mutex_);
    is_to_end_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void WorkQueue::append(std::function<void()> work) {
  {
    std::lock_guard lock(mutex_);
    ++num_appended_;
    if (error_) return;
    work_.push_back(std::move(work));
  }
  changed_.notify_all();
}

int64_t WorkQueue::num_appended() const {
  std::lock_guard lock(mutex_);
  return num_appended_;
}

bool WorkQueue::is_done(int64_t number) const {
  std::lock_guard lock(mutex_);
  return error_ || num_done_ >= number;
}

void WorkQueue::wait(int64_t number) const {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return error_ || num_done_ >= number; });
  if (error_) std::rethrow_exception(error_);
}

void WorkQueue::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return is_to_end_ || !work_.empty(); });
    if (work_.empty()) return;
    const std::function<void()> work = std::move(work_.front());
    work_.pop_front();
    lock.unlock();
    std::exception_ptr error;
    try {
      work();
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    ++num_done_;
    if (error) error_ = error, work_.clear();
    changed_.notify_all();
  }
}

namespace {

struct CpuStream : Stream {
  std::unique_ptr<WorkQueue> queue;  // null: work is done when a call returns
};

// After `number` pieces of work of a queue; without one it has happened.
struct CpuEvent {
  WorkQueue* queue = nullptr;
  int64_t number = 0;
};

WorkQueue* queue_of(Stream* stream) { return stream ? static_cast<CpuStream*>(stream)->queue.get() : nullptr; }
CpuEvent& event_of(Event* event) { return *reinterpret_cast<CpuEvent*>(event); }

Stream* stream_create() { return new CpuStream; }
void stream_destroy(Stream* stream) { delete static_cast<CpuStream*>(stream); }

void stream_sync(Stream* stream) {
  if (const WorkQueue* queue = queue_of(stream)) queue->wait(queue->num_appended());
}

Stream* comm_stream_create() {
  auto* stream = new CpuStream;
  stream->queue = std::make_unique<WorkQueue>();
  stream->enqueue = [](Stream* to, std::function<void()> work) { queue_of(to)->append(std::move(work)); };
  return stream;
}

Event* event_create() { return reinterpret_cast<Event*>(new CpuEvent); }
void event_destroy(Event* event) { delete &event_of(event); }

void event_record(Stream* stream, Event* event) {
  WorkQueue* queue = queue_of(stream);
  event_of(event) = {queue, queue ? queue->num_appended() : 0};
}

void event_wait(Stream* stream, Event* event) {
  const CpuEvent at = event_of(event);
  if (!at.queue || at.queue == queue_of(stream)) return;
  if (WorkQueue* queue = queue_of(stream)) return queue->append([at] { at.queue->wait(at.number); });
  at.queue->wait(at.number);
}

bool event_query(Event* event) {
  const CpuEvent& at = event_of(event);
  return !at.queue || at.queue->is_done(at.number);
}

}  // namespace

void add_streams(DeviceTable& table) {
  table.stream_create = stream_create, table.stream_destroy = stream_destroy, table.stream_sync = stream_sync;
  table.comm_stream_create = comm_stream_create;
  table.event_create = event_create, table.event_destroy = event_destroy;
  table.event_record = event_record, table.event_wait = event_wait, table.event_query = event_query;
}

}  // namespace temper::backend

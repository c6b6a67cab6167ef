// Streams and events of the CPU: what is ordered, who waits, and where errors come out.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <vector>

#include "backend/registry.h"
#include "backend/watched.h"

namespace temper::backend {
namespace {

const DeviceTable& device() { return cpu().device; }

class StreamTest : public ::testing::Test {
 protected:
  ~StreamTest() override {
    for (Event* event : events_) device().event_destroy(event);
    for (Stream* stream : {main_, beside_, other_}) device().stream_destroy(stream);
  }
  Event* event() { return events_.emplace_back(device().event_create()); }
  // Work that lasts until the gate is opened.
  void enqueue_wait_for_gate() {
    beside_->enqueue(beside_, [this] {
      while (!gate_) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    });
  }

  Stream* const main_ = device().stream_create();
  Stream* const beside_ = device().comm_stream_create();
  Stream* const other_ = device().comm_stream_create();
  std::atomic<bool> gate_ = false;
  std::vector<Event*> events_;
};

TEST_F(StreamTest, AnEventHasHappenedWhereWorkIsDoneByTheCaller) {
  Event* e = event();
  EXPECT_TRUE(device().event_query(e));
  device().event_record(main_, e);
  EXPECT_TRUE(device().event_query(e));
  device().event_wait(main_, e);
  EXPECT_EQ(main_->enqueue, nullptr);
}

TEST_F(StreamTest, WorkRunsInItsOrderBesideTheCaller) {
  Event *before = event(), *after = event();
  std::vector<int> order;
  enqueue_wait_for_gate();
  device().event_record(beside_, before);
  for (int i = 0; i < 100; ++i) beside_->enqueue(beside_, [&order, i] { order.push_back(i); });
  device().event_record(beside_, after);
  EXPECT_FALSE(device().event_query(before));
  gate_ = true;
  device().event_wait(main_, after);
  EXPECT_TRUE(device().event_query(before));
  EXPECT_TRUE(device().event_query(after));
  ASSERT_EQ(order.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
}

TEST_F(StreamTest, AStreamWaitsForTheEventOfAnother) {
  Event* e = event();
  int value = 0, seen = -1;
  enqueue_wait_for_gate();
  beside_->enqueue(beside_, [&] { value = 7; });
  device().event_record(beside_, e);
  device().event_wait(other_, e);
  other_->enqueue(other_, [&] { seen = value; });
  gate_ = true;
  device().stream_sync(other_);
  EXPECT_EQ(seen, 7);
}

TEST_F(StreamTest, WhatWorkThrowsComesOutAtEveryWaitAndTheRestIsDropped) {
  Event *before = event(), *after = event();
  bool was_run = false;
  device().event_record(beside_, before);
  beside_->enqueue(beside_, [] { throw std::runtime_error("a peer is gone"); });
  beside_->enqueue(beside_, [&] { was_run = true; });
  device().event_record(beside_, after);
  EXPECT_THROW(device().event_wait(main_, after), std::runtime_error);
  EXPECT_THROW(device().stream_sync(beside_), std::runtime_error);
  EXPECT_TRUE(device().event_query(after));  // nothing is to come
  EXPECT_FALSE(was_run);
}

TEST_F(StreamTest, ADestroyedStreamHasDoneItsWork) {
  Stream* stream = device().comm_stream_create();
  std::atomic<int> count = 0;
  for (int i = 0; i < 50; ++i) stream->enqueue(stream, [&] { ++count; });
  device().stream_destroy(stream);
  EXPECT_EQ(count, 50);
}

struct Nobody : OpWatcher {
  void before(const OpCall&) override {}
  void after(const OpCall&) override {}
};

TEST_F(StreamTest, AWrappedBackendWaitsOnItsOwnStream) {
  Nobody nobody;
  WatchedBackend watched(cpu(), main_, nobody);
  const DeviceTable& wrapped = watched.backend().device;
  Event* e = event();
  int value = 0;
  enqueue_wait_for_gate();
  beside_->enqueue(beside_, [&] { value = 7; });
  device().event_record(beside_, e);
  gate_ = true;
  wrapped.event_wait(watched.stream(), e);
  EXPECT_EQ(value, 7);
  wrapped.event_record(watched.stream(), e);
  EXPECT_TRUE(wrapped.event_query(e));
  EXPECT_EQ(watched.stream()->enqueue, nullptr);
}

TEST(NullDevice, EverythingHasHappened) {
  const DeviceTable& null = null_backend().device;
  Stream* stream = null.comm_stream_create();
  Event* e = null.event_create();
  null.event_record(stream, e);
  null.event_wait(stream, e);
  EXPECT_TRUE(null.event_query(e));
  null.event_destroy(e);
  null.stream_destroy(stream);
}

}  // namespace
}  // namespace temper::backend

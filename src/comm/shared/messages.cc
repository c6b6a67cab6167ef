// Messages between two ranks of a SharedComm: the sender keeps a copy in its own heap until the receiver has it.
#include <algorithm>

#include "base/check.h"
#include "comm/shared/shared_comm.h"

namespace temper::comm {

void SharedComm::send(backend::Stream* stream, View x, int64_t to, Call call) {
  CHECK(x.contiguous() && 0 <= to && to < group_.size, x.to_string(), to, group_.size);
  in_order(stream, [=, this] {
    Identity id{.op = Op::kSend, .dtype = x.dtype, .num_bytes = x.num_bytes()};
    caller_.lane->begin_call(name_, ++num_begun_, id, call, caller_.place);
    Queue& queue = group_.queue(rank_, to);
    const uint32_t number = queue.sent.value.load(std::memory_order_relaxed);
    // Only a rank with hundreds of messages under way to one other waits here.
    traffic_.wait_seconds += caller_.lane->wait(queue.received, number + 1 - Queue::kLength,
                                                [&] { return members_[static_cast<size_t>(to)]; });
    Message& message = queue.messages[number % Queue::kLength];
    message.sent = caller_.lane->doing();
    message.payload = me_->heap().allocate_message(x.num_bytes(), queue.received, number + 1);
    std::copy_n(static_cast<const char*>(x.raw()), x.num_bytes(), group_.block.at(message.payload));
    raise(queue.sent, number + 1);
    traffic_.num_calls += 1;
    traffic_.num_bytes += x.num_bytes();
    leave();
  });
}

void SharedComm::recv(backend::Stream* stream, View x, int64_t from, Call call) {
  CHECK(x.contiguous() && 0 <= from && from < group_.size, x.to_string(), from, group_.size);
  in_order(stream, [=, this] {
    Identity id{.op = Op::kRecv, .dtype = x.dtype, .num_bytes = x.num_bytes()};
    caller_.lane->begin_call(name_, ++num_begun_, id, call, caller_.place);
    Queue& queue = group_.queue(from, rank_);
    const uint32_t number = queue.received.value.load(std::memory_order_relaxed);
    traffic_.wait_seconds +=
        caller_.lane->wait(queue.sent, number + 1, [&] { return members_[static_cast<size_t>(from)]; });
    const Message& message = queue.messages[number % Queue::kLength];
    if (!is_same_message(message.sent.id, id)) {
      me_->fail_world([&] {
        return explain_message(me_->rank(), caller_.lane->doing(), members_[static_cast<size_t>(from)], message.sent);
      });
    }
    std::copy_n(group_.block.at(message.payload), x.num_bytes(), static_cast<char*>(x.raw()));
    raise(queue.received, number + 1);
    traffic_.num_calls += 1;
    traffic_.num_bytes += x.num_bytes();
    leave();
  });
}

}  // namespace temper::comm

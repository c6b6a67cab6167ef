#include "comm/mpi/mpi_comm.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "comm/shared/shared_comm.h"

namespace temper::comm {

MpiComm::MpiComm(std::shared_ptr<SharedRank> me, MPI_Comm comm, std::vector<int64_t> members, std::string_view name)
    : me_(std::move(me)), comm_(comm), members_(std::move(members)), name_(name) {
  int rank = 0;
  check_mpi(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "a new group");
  check_mpi(MPI_Comm_rank(comm_, &rank), "a new group");
  rank_ = rank;
}

MpiComm::~MpiComm() {
  caller_ = {&me_->lane(LaneKind::kComputing), me_->place()};
  try {
    for (Outgoing& out : outgoing_) finish(out.requests);
  } catch (const std::exception&) {  // the world has failed; whoever uses it next hears why
  }
}

void MpiComm::finish(Requests& requests) {
  while (!requests.done()) {
    const int64_t peer = requests.awaited();
    const auto ready = [&] { return requests.done() || requests.awaited() != peer; };
    traffic_.wait_seconds += caller_.lane->wait(ready, members_[static_cast<size_t>(peer)]);
  }
}

void MpiComm::exchange(std::span<const Parcel> received, std::span<const Parcel> sent, Tag tag) {
  Requests requests;
  for (const Parcel& p : received) {
    if (p.peer != rank_) requests.receive(comm_, p, tag);
  }
  for (const Parcel& p : sent) {
    if (p.peer != rank_) requests.send(comm_, p, tag);
  }
  finish(requests);
}

void MpiComm::enter(Identity id, int64_t num_bytes, const Call& call) {
  caller_.lane->begin_call(name_, ++num_begun_, id, call, caller_.place);
  std::erase_if(outgoing_, [](Outgoing& o) { return o.requests.done(); });
  Doing mine = caller_.lane->doing();
  std::vector<Doing> calls(members_.size(), mine);
  std::vector<Parcel> received, sent;
  for (int64_t r = 0; r < size(); ++r) {
    received.push_back({r, reinterpret_cast<char*>(&calls[static_cast<size_t>(r)]), sizeof mine});
    sent.push_back({r, reinterpret_cast<char*>(&mine), sizeof mine});
  }
  exchange(received, sent, Tag::kIdentity);
  if (std::ranges::any_of(calls, [&](const Doing& other) { return other.id != id; })) {
    me_->fail_world([&] { return explain_mismatch(members_, calls); });
  }
  traffic_.num_calls += 1;
  traffic_.num_bytes += num_bytes;
}

std::unique_ptr<Comm> MpiComm::split(int64_t color, int64_t key, std::string_view name) {
  struct Choice {
    int64_t color, key, rank;
  };
  caller_ = {&me_->lane(LaneKind::kComputing), me_->place()};
  enter({.op = Op::kSplit}, 0, {.what = "split"});
  const Choice mine{color, key, rank_};
  std::vector<Choice> choices(members_.size());
  gather_bytes(reinterpret_cast<char*>(choices.data()), reinterpret_cast<const char*>(&mine), sizeof mine);
  std::erase_if(choices, [&](const Choice& c) { return c.color != color; });
  std::sort(choices.begin(), choices.end(),
            [](const Choice& a, const Choice& b) { return std::tie(a.key, a.rank) < std::tie(b.key, b.rank); });
  std::vector<int64_t> members;
  int64_t rank = 0;
  for (const Choice& c : choices) {
    if (c.rank == rank_) rank = std::ssize(members);
    members.push_back(members_[static_cast<size_t>(c.rank)]);
  }
  // A group on one machine gets memory from its first rank; of the others each makes a communicator.
  const auto& here = me_->standing().world_ranks;
  const auto is_here = [&](int64_t r) { return std::ranges::find(here, r) != here.end(); };
  const bool local = std::ranges::all_of(members, is_here);
  const int64_t own_offset =
      local && rank == 0 ? me_->heap().allocate_for_world(Group::num_bytes(std::ssize(members))) : 0;
  std::vector<int64_t> offsets(members_.size());
  gather_bytes(reinterpret_cast<char*>(offsets.data()), reinterpret_cast<const char*>(&own_offset), sizeof own_offset);
  MPI_Comm made = MPI_COMM_NULL;
  const auto leader = static_cast<int>(choices[0].rank);
  check_mpi(MPI_Comm_split(comm_, local ? MPI_UNDEFINED : leader, static_cast<int>(rank), &made), "split");
  leave();
  if (!local) return std::make_unique<MpiComm>(me_, made, std::move(members), name);
  const Group group{me_->block(), offsets[static_cast<size_t>(leader)], std::ssize(members)};
  return std::make_unique<SharedComm>(me_, group, rank, std::move(members), name);
}

void MpiComm::send(backend::Stream* stream, View x, int64_t to, Call call) {
  CHECK(x.contiguous() && 0 <= to && to < size(), x.to_string(), to, size());
  in_order(stream, [=, this] {
    Identity id{.op = Op::kSend, .dtype = x.dtype, .num_bytes = x.num_bytes()};
    caller_.lane->begin_call(name_, ++num_begun_, id, call, caller_.place);
    std::erase_if(outgoing_, [](Outgoing& o) { return o.requests.done(); });
    const char* begin = static_cast<const char*>(x.raw());
    Outgoing& out = outgoing_.emplace_back();
    out.head = caller_.lane->doing();
    out.data.assign(begin, begin + x.num_bytes());
    out.requests.send(comm_, {to, reinterpret_cast<char*>(&out.head), sizeof out.head}, Tag::kMessageHead);
    out.requests.send(comm_, {to, out.data.data(), x.num_bytes()}, Tag::kMessage);
    traffic_.num_calls += 1;
    traffic_.num_bytes += x.num_bytes();
    leave();
  });
}

void MpiComm::recv(backend::Stream* stream, View x, int64_t from, Call call) {
  CHECK(x.contiguous() && 0 <= from && from < size(), x.to_string(), from, size());
  in_order(stream, [=, this] {
    Identity id{.op = Op::kRecv, .dtype = x.dtype, .num_bytes = x.num_bytes()};
    caller_.lane->begin_call(name_, ++num_begun_, id, call, caller_.place);
    Doing head;
    {
      Requests requests;
      requests.receive(comm_, {from, reinterpret_cast<char*>(&head), sizeof head}, Tag::kMessageHead);
      finish(requests);
    }
    if (!is_same_message(head.id, id)) {
      me_->fail_world([&] {
        return explain_message(me_->rank(), caller_.lane->doing(), members_[static_cast<size_t>(from)], head);
      });
    }
    Requests requests;
    requests.receive(comm_, {from, static_cast<char*>(x.raw()), x.num_bytes()}, Tag::kMessage);
    finish(requests);
    traffic_.num_calls += 1;
    traffic_.num_bytes += x.num_bytes();
    leave();
  });
}

void MpiComm::abort(std::string_view why) noexcept {
  try {
    me_->post_verdict(fmt::format("rank {} failed: {}", me_->rank(), why));
  } catch (...) {  // no memory for the text
    me_->post_verdict("a rank failed");
  }
}

}  // namespace temper::comm

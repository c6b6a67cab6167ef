#include "comm/shared/shared_comm.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "base/error.h"

namespace temper::comm {

SharedComm::SharedComm(std::shared_ptr<SharedRank> me, Group group, int64_t rank, std::vector<int64_t> members,
                       std::string_view name)
    : me_(std::move(me)),
      group_(std::move(group)),
      rank_(rank),
      members_(std::move(members)),
      name_(name),
      sources_(members_.size()) {}

std::unique_ptr<Comm> SharedComm::world(std::shared_ptr<SharedRank> me) {
  const Block& block = me->block();
  const int64_t size = block.num_ranks(), rank = me->standing().block_rank;
  // The first thing that rank 0 gives out, so everyone knows where it is.
  const int64_t num_bytes = Group::num_bytes(size);
  const int64_t offset =
      rank == 0 ? me->heap().allocate_for_world(num_bytes) : SharedHeap(block, 0).allocate_for_world(num_bytes);
  return std::make_unique<SharedComm>(me, Group{block, offset, size}, rank, me->standing().world_ranks, "world");
}

void SharedComm::enter(Identity id, int64_t num_bytes, const Call& call) {
  caller_.lane->begin_call(name_, ++num_begun_, id, call, caller_.place);
  group_.member(rank_).call[parity(0)] = caller_.lane->doing();
  traffic_.num_calls += 1;
  traffic_.num_bytes += num_bytes;
}

void SharedComm::meet() {
  ++stage_;
  group_.member(rank_).arrived.value.store(stage_, std::memory_order_release);
  Meeting& meeting = group_.meeting();
  const uint32_t num_arrived = meeting.num_arrived.fetch_add(1, std::memory_order_acq_rel) + 1;
  if (num_arrived == stage_ * static_cast<uint32_t>(group_.size)) return raise(meeting.met, stage_);
  traffic_.wait_seconds += caller_.lane->wait(meeting.met, stage_, [this] { return first_missing(); });
}

int64_t SharedComm::first_missing() const {
  for (int64_t r = 0; r < group_.size; ++r) {
    if (!group_.member(r).arrived.reached(stage_)) return members_[static_cast<size_t>(r)];
  }
  return me_->rank();
}

void SharedComm::check_agreement() {
  const uint32_t last = (stage_ - 1) % 2;
  const Identity& mine = group_.member(rank_).call[last].id;
  bool agreed = true;
  for (int64_t r = 0; r < group_.size; ++r) agreed = agreed && group_.member(r).call[last].id == mine;
  if (agreed) return;
  me_->fail_world([&] {
    std::vector<Doing> calls;
    for (int64_t r = 0; r < group_.size; ++r) calls.push_back(group_.member(r).call[last]);
    return explain_mismatch(members_, calls);
  });
}

std::unique_ptr<Comm> SharedComm::split(int64_t color, int64_t key, std::string_view name) {
  struct Choice {
    int64_t color, key, rank;
  };
  const Call call{.what = "split"};
  caller_ = {&me_->lane(LaneKind::kComputing), me_->place()};
  enter({.op = Op::kSplit}, 0, call);
  const Choice mine{color, key, rank_};
  std::vector<Choice> choices(members_.size());
  gather_bytes(reinterpret_cast<char*>(choices.data()), reinterpret_cast<const char*>(&mine), sizeof mine);
  std::erase_if(choices, [&](const Choice& c) { return c.color != color; });
  std::sort(choices.begin(), choices.end(),
            [](const Choice& a, const Choice& b) { return std::tie(a.key, a.rank) < std::tie(b.key, b.rank); });
  const auto size = static_cast<int64_t>(choices.size());
  const bool leads = choices[0].rank == rank_;
  const int64_t offset = leads ? me_->heap().allocate_for_world(Group::num_bytes(size)) : 0;
  std::vector<int64_t> offsets(members_.size());
  enter({.op = Op::kSplit}, 0, call);
  gather_bytes(reinterpret_cast<char*>(offsets.data()), reinterpret_cast<const char*>(&offset), sizeof offset);
  leave();
  std::vector<int64_t> members;
  int64_t rank = 0;
  for (const Choice& c : choices) {
    if (c.rank == rank_) rank = static_cast<int64_t>(members.size());
    members.push_back(members_[static_cast<size_t>(c.rank)]);
  }
  const Group group{group_.block, offsets[static_cast<size_t>(choices[0].rank)], size};
  return std::make_unique<SharedComm>(me_, group, rank, std::move(members), name);
}

void SharedComm::abort(std::string_view why) noexcept {
  try {
    me_->post_verdict(fmt::format("rank {} failed: {}", me_->rank(), why));
  } catch (...) {  // no memory for the text
    me_->post_verdict("a rank failed");
  }
}

}  // namespace temper::comm

// Ranks that fail, lag or differ are named on every other rank.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "backend/registry.h"
#include "base/error.h"
#include "comm/checks.h"
#include "comm/world.h"

namespace temper::comm {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// What every rank's error says; "" where the body ended well. An error ends a rank as it does in a program: by abort.
std::vector<std::string> errors_of(int64_t num_ranks, const std::function<void(Comm&)>& body) {
  std::vector<std::string> errors(static_cast<size_t>(num_ranks));
  run_ranks(num_ranks, [&](Comm& world) {
    try {
      body(world);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kPeer);
      errors[static_cast<size_t>(world.rank())] = error.what();
      world.abort(error.what());
    }
  });
  return errors;
}

void sleep_seconds(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

void reduce(Comm& group, const char* what, int64_t layer, int64_t count = 1000) {
  std::vector<float> x(static_cast<size_t>(count), 1.0f);
  group.all_reduce(nullptr, View(x.data(), DType::kF32, {count}), Reduce::kSum, {.what = what, .layer = layer});
}

TEST(FailureTest, ARankThatIsStuckComputingIsNamedWithItsPlace) {
  const auto errors = errors_of(4, [](Comm& world) {
    world.set_deadline(0.3);
    world.set_place(7, "backward of micro-batch 3");
    reduce(world, "gradients", 3);
    if (world.rank() == 1) sleep_seconds(0.8);
    reduce(world, "gradients", 4);
  });
  EXPECT_THAT(errors, Each(AllOf(HasSubstr("rank 1 is stuck computing: step 7, backward of micro-batch 3, since 0."),
                                 HasSubstr("ranks 0, 2, 3 wait for it in gradients of layer 4 (all_reduce in world, "
                                           "call 2, f32, 3.9 KiB)"),
                                 HasSubstr("\n  ranks 0, 2, 3: waiting for rank 1 in gradients of layer 4"))));
}

TEST(FailureTest, ADelayBelowTheDeadlineIsNoError) {
  const auto errors = errors_of(3, [](Comm& world) {
    world.set_deadline(20);
    if (world.rank() == 2) sleep_seconds(0.2);
    reduce(world, "gradients", 4);
    if (world.rank() == 0) {
      EXPECT_GT(world.traffic().wait_seconds, 0.01);
    }
  });
  EXPECT_THAT(errors, Each(""));
}

TEST(FailureTest, TheRankAtTheEndOfAChainOfWaitsIsNamed) {
  const auto errors = errors_of(4, [](Comm& world) {
    world.set_deadline(0.3);
    const auto pair = world.split(world.rank() / 2, 0, "pair");
    const auto cross = world.split(world.rank() % 2, 0, "cross");
    world.set_place(2, "forward of micro-batch 0");
    // 3 is stuck; 2 waits for it in its pair, 0 for 2 across, 1 for 0 in its pair.
    if (world.rank() == 3) sleep_seconds(0.8);
    if (world.rank() >= 2) reduce(*pair, "norms", 0);
    if (world.rank() % 2 == 0) reduce(*cross, "weights", 1);
    if (world.rank() < 2) reduce(*pair, "norms", 2);
  });
  for (int64_t r = 0; r < 3; ++r) {
    EXPECT_THAT(errors[static_cast<size_t>(r)], AllOf(HasSubstr("rank 3 is stuck computing: step 2, forward of"),
                                                      HasSubstr("ranks 0, 1, 2 wait for it")));
  }
}

TEST(FailureTest, RanksThatWaitForOneAnotherAreNamed) {
  const auto errors = errors_of(2, [](Comm& world) {
    world.set_deadline(0.3);
    const auto other = world.split(0, 0, "other");
    reduce(world.rank() == 0 ? world : *other, "numbers", world.rank());
  });
  EXPECT_THAT(errors, Each(AllOf(HasSubstr("ranks 0, 1 wait for one another"), HasSubstr("numbers of layer 0"),
                                 HasSubstr("numbers of layer 1"))));
}

TEST(FailureTest, DifferentCallsAreNamedAtOnce) {
  struct Case {
    std::function<void(Comm&)> odd;
    const char* says;
  };
  const Case cases[] = {
      {[](Comm& w) { reduce(w, "weights", 4); }, "rank 1 came to weights of layer 4 (all_reduce in world"},
      {[](Comm& w) { reduce(w, "gradients", 5); }, "rank 1 came to gradients of layer 5 (all_reduce in world"},
      {[](Comm& w) { reduce(w, "gradients", 4, 999); },
       "rank 1 came to gradients of layer 4 (all_reduce in world, call 1, f32, 3.9 KiB)"},
      {[](Comm& w) { reduce(w, "gradients", 4, 3'000'000); }, "call 1, f32, 11.4 MiB)"},
      {[](Comm& w) { w.barrier(nullptr, {.what = "save"}); }, "rank 1 came to save (barrier in world, call 1)"},
      {[](Comm& w) { w.split(0, 0, "late"); }, "rank 1 came to split (split in world, call 1)"},
      {[](Comm& w) {
         int32_t x[1000];
         w.all_reduce(nullptr, View(x, DType::kI32, {1000}), Reduce::kSum, {.what = "gradients", .layer = 4});
       },
       "call 1, i32, 3.9 KiB)"},
      {[](Comm& w) {
         w.set_place(8, "forward");  // has left out the rest of a step, and comes to the same call again
         reduce(w, "gradients", 4);
       },
       "rank 1 came to gradients of layer 4 (all_reduce in world, call 1, f32, 3.9 KiB) at step 8, forward"},
  };
  for (const Case& c : cases) {
    const auto errors = errors_of(3, [&](Comm& world) {
      world.set_place(7, "backward");
      if (world.rank() == 1) return c.odd(world);
      reduce(world, "gradients", 4);
    });
    EXPECT_THAT(errors, Each(AllOf(HasSubstr("ranks 0, 2 came to gradients of layer 4"), HasSubstr(c.says)))) << c.says;
  }
}

TEST(FailureTest, ARankThatSkipsACollectiveIsNamed) {
  const auto errors = errors_of(3, [](Comm& world) {
    for (int64_t layer = 0; layer < 4; ++layer) {
      if (world.rank() != 2 || layer != 2) reduce(world, "gradients", layer);
    }
  });
  EXPECT_THAT(errors, Each(AllOf(HasSubstr("ranks 0, 1 came to gradients of layer 2"),
                                 HasSubstr("rank 2 came to gradients of layer 3"))));
}

TEST(FailureTest, RowsThatDoNotAgreeAreNamed) {
  const auto errors = errors_of(2, [](Comm& world) {
    float x[12] = {}, y[12] = {};
    const int64_t send_rows[] = {2, 2};
    const int64_t recv_rows[] = {2, world.rank() == 0 ? 2 : 1};
    world.all_to_all_v(nullptr, View(y, DType::kF32, {recv_rows[0] + recv_rows[1], 3}), recv_rows,
                       View(x, DType::kF32, {4, 3}), send_rows, {.what = "dispatch", .layer = 3});
  });
  EXPECT_THAT(errors[1], HasSubstr("rank 1 sends 2 rows to rank 1, which expects 1: dispatch of layer 3"));
}

TEST(FailureTest, AMessageThatIsNotTheExpectedOneIsNamed) {
  const auto errors = errors_of(2, [](Comm& world) {
    float x[8] = {};
    if (world.rank() == 0) world.send(nullptr, View(x, DType::kF32, {8}), 1, {.what = "activations", .layer = 2});
    if (world.rank() == 1) world.recv(nullptr, View(x, DType::kF32, {8}), 0, {.what = "gradients", .layer = 2});
  });
  EXPECT_THAT(errors[1], AllOf(HasSubstr("rank 1 came to gradients of layer 2 (recv in world"),
                               HasSubstr("but rank 0 has sent it activations of layer 2 (send in world")));
}

TEST(FailureTest, AnAbortReachesThoseWhoWaitAndThoseWhoComeLater) {
  const auto errors = errors_of(4, [](Comm& world) {
    world.set_deadline(600);
    if (world.rank() == 3) return world.abort("the disk is full");
    if (world.rank() == 2) sleep_seconds(0.1);
    reduce(world, "gradients", 4);
  });
  for (int64_t r = 0; r < 3; ++r) EXPECT_EQ(errors[static_cast<size_t>(r)], "rank 3 failed: the disk is full");
}

TEST(FailureTest, ARankThatHasLeftIsNamed) {
  const auto errors = errors_of(2, [](Comm& world) {
    world.set_deadline(600);
    world.set_place(3, "save");
    if (world.rank() == 0) reduce(world, "gradients", 4);
  });
  EXPECT_THAT(errors[0], HasSubstr("rank 1 is finished; its last place: step 3, save"));
}

// Many pieces of work are under way beside the computing thread; what it is told at its next wait.
TEST(FailureTest, ARankThatIsWaitedForBesideComputationIsNamed) {
  const auto errors = errors_of(3, [](Comm& world) {
    world.set_deadline(0.3);
    const auto beside = world.split(0, world.rank(), "beside");
    std::vector<float> x(1000, 1.0f);
    const testing::CommStream stream;  // ends before what it works on
    const auto enqueue = [&](int64_t layer) {
      beside->all_reduce(stream.get(), View(x.data(), DType::kF32, {1000}), Reduce::kSum,
                         {.what = "gradients", .layer = layer});
    };
    world.set_place(7, "backward of micro-batch 3");
    enqueue(5);
    if (world.rank() == 1) sleep_seconds(0.8);
    enqueue(4);
    world.set_place(7, "backward of micro-batch 4");  // the computing threads go on
    backend::cpu().device.stream_sync(stream.get());
  });
  for (const size_t r : {0, 2}) {
    EXPECT_THAT(errors[r], AllOf(HasSubstr("rank 1 is stuck computing: step 7, backward of micro-batch 3, since 0."),
                                 HasSubstr("ranks 0, 2 wait for it in gradients of layer 4 (all_reduce in beside, "
                                           "call 2, f32, 3.9 KiB)"),
                                 HasSubstr("\n  ranks 0, 2: waiting for rank 1 in gradients of layer 4 (all_reduce in "
                                           "beside, call 2, f32, 3.9 KiB): step 7, backward of micro-batch 3")));
  }
}

TEST(FailureTest, ARankThatSkipsACollectiveBesideComputationIsNamed) {
  const auto errors = errors_of(3, [](Comm& world) {
    std::vector<float> x(1000, 1.0f);
    const testing::CommStream stream;
    for (int64_t layer = 0; layer < 4; ++layer) {
      world.set_place(7, layer < 3 ? "backward of micro-batch 3" : "backward of micro-batch 4");
      if (world.rank() != 2 || layer != 2)
        world.all_reduce(stream.get(), View(x.data(), DType::kF32, {1000}), Reduce::kSum,
                         {.what = "gradients", .layer = layer});
    }
    world.set_place(8, "forward");
    backend::cpu().device.stream_sync(stream.get());
  });
  EXPECT_THAT(errors, Each(AllOf(HasSubstr("ranks 0, 1 came to gradients of layer 2 (all_reduce in world, call 3, f32, "
                                           "3.9 KiB) at step 7, backward of micro-batch 3"),
                                 HasSubstr("rank 2 came to gradients of layer 3 (all_reduce in world, call 3, f32, "
                                           "3.9 KiB) at step 7, backward of micro-batch 4"))));
}

// The streams end, though others will never come; nobody hangs.
TEST(FailureTest, AnAbortEndsWhatIsUnderWayBesideComputation) {
  const auto errors = errors_of(3, [](Comm& world) {
    world.set_deadline(600);
    std::vector<float> x(1000, 1.0f);
    const testing::CommStream stream;
    if (world.rank() == 2) return world.abort("the disk is full");
    for (int64_t layer = 0; layer < 4; ++layer)
      world.all_reduce(stream.get(), View(x.data(), DType::kF32, {1000}), Reduce::kSum, {.what = "gradients"});
    if (world.rank() == 0) backend::cpu().device.stream_sync(stream.get());
  });
  EXPECT_THAT(errors, ElementsAre("rank 2 failed: the disk is full", "", ""));
}

TEST(FailureTest, TheFirstCauseIsRethrown) {
  try {
    run_ranks(3, [](Comm& world) {
      if (world.rank() == 1) fail(ErrorCode::kCorrupt, "weights are torn");
      reduce(world, "gradients", 4);
    });
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
    EXPECT_STREQ(error.what(), "weights are torn");
  }
}

}  // namespace
}  // namespace temper::comm

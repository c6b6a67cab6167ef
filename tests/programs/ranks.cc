// A rank of a world of processes, for tests/comm/processes_test.cc: started by mpirun, it either checks every function,
// or takes part in a drill in which one rank fails.
//
//   ranks check            every answer of every function
//   ranks DRILL [RANK [beside]]   a few steps, in the third of which RANK (default 1)
//                          kill   is killed            stuck  computes for too long     skip   leaves out a collective
//                          stop   stops                late   is late, not too late     throw  throws
//                          beside: collectives are on a stream for communication, and waited for at the end of a step
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "backend/registry.h"
#include "base/clock.h"
#include "base/error.h"
#include "comm/checks.h"
#include "comm/world.h"

namespace temper::comm {
namespace {

constexpr int64_t kBadStep = 2;
constexpr double kDeadlineSeconds = 1;

void sleep_seconds(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

void reduce(Comm& world, backend::Stream* stream, std::vector<float>& x, int64_t layer) {
  world.all_reduce(stream, View(x.data(), DType::kF32, {std::ssize(x)}), Reduce::kSum,
                   {.what = "gradients", .layer = layer});
}

// Returns whether this rank leaves out the collective that follows.
bool misbehave(const std::string& drill) {
  if (drill == "kill") std::raise(SIGKILL);
  if (drill == "stop") std::raise(SIGSTOP);
  if (drill == "stuck") sleep_seconds(2 * kDeadlineSeconds);
  if (drill == "late") sleep_seconds(0.2 * kDeadlineSeconds);
  if (drill == "throw") fail(ErrorCode::kIo, "the disk is full");
  return drill == "skip";
}

void run_drill(Comm& world, const std::string& drill, int64_t bad_rank, bool beside) {
  std::vector<float> x(1000, 1.0f);
  const testing::CommStream stream;
  world.set_deadline(kDeadlineSeconds);
  for (int64_t step = 0; step < 4; ++step) {
    world.set_place(step, "backward of micro-batch 0");
    for (int64_t layer = 2; layer >= 0; --layer) {
      const bool bad = step == kBadStep && layer == 1 && world.rank() == bad_rank;
      if (bad) std::fprintf(stderr, "rank %d misbehaves at %.3f s\n", static_cast<int>(world.rank()), now_seconds());
      if (!bad || !misbehave(drill)) reduce(world, beside ? stream.get() : nullptr, x, layer);
    }
    backend::cpu().device.stream_sync(stream.get());
  }
}

int run(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "check";
  std::signal(SIGTERM, SIG_IGN);  // as a trainer that ends its step first
  const auto world = open_world();
  Comm& comm = world->comm();
  const int rank = static_cast<int>(comm.rank());
  try {
    if (what == "check") {
      testing::check_all(comm);
      testing::check_beside(comm);
    } else {
      run_drill(comm, what, argc > 2 ? std::atoll(argv[2]) : 1, argc > 3);
    }
    world->close();
  } catch (const Error& error) {
    comm.abort(error.what());
    std::fprintf(stderr, "rank %d at %.3f s: %s\n", rank, now_seconds(), error.what());
    return exit_code(error.code());
  }
  std::fprintf(stderr, "rank %d of %d is content\n", rank, static_cast<int>(comm.size()));
  return 0;
}

}  // namespace
}  // namespace temper::comm

int main(int argc, char** argv) {
  try {
    return temper::comm::run(argc, argv);
  } catch (const temper::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return temper::exit_code(error.code());
  }
}

// Speed of the collectives.
//
//   build/bench/comm [N]                  N ranks (default 2) as threads
//   mpirun -n N build/bench/comm          ranks as processes, and MPI's own collectives beside them
//
// One line per collective and size: time of a call, GB/s of the tensor (its bytes on one rank over the time), and GB/s
// moved (all that all ranks must at least read and write of their tensors, over the time):
//   all_reduce      every rank reads and writes n          2 P n
//   reduce_scatter  reads n, writes n / P                  P n + n
//   all_gather      reads n / P, writes n                  n + P n
//   all_to_all_v    reads and writes n                     2 P n
#define OMPI_SKIP_MPICXX
#include <fmt/format.h>
#include <mpi.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <vector>

#include "base/clock.h"
#include "comm/world.h"

namespace temper::comm {
namespace {

constexpr int64_t kSizes[] = {4 << 10, 64 << 10, 1 << 20, 16 << 20, 64 << 20};
constexpr double kSecondsPerBatch = 0.05;
constexpr int kBatches = 7;

struct Case {
  const char* name;
  double times_moved;  // bytes moved over n
  std::function<void()> ours, peers;
};

// Seconds of a call: the median over batches of calls, as rank 0 sees them.
double measure(Comm& world, const std::function<void()>& call) {
  const auto meet = [&] { world.barrier(nullptr, {.what = "batch"}); };
  std::vector<double> seconds;
  int64_t calls = 1;
  for (int batch = -1; batch < kBatches; ++batch) {
    meet();
    const double start = now_seconds();
    for (int64_t i = 0; i < calls; ++i) call();
    meet();
    const double each = (now_seconds() - start) / static_cast<double>(calls);
    if (batch >= 0) seconds.push_back(each);
    if (batch < 0) {
      calls = std::clamp<int64_t>(static_cast<int64_t>(kSecondsPerBatch / each), 2, 100'000);
      world.all_reduce(nullptr, View(&calls, DType::kI64, {1}), Reduce::kMax, {.what = "calls"});
    }
  }
  std::nth_element(seconds.begin(), seconds.begin() + kBatches / 2, seconds.end());
  return seconds[kBatches / 2];
}

void run_size(Comm& world, int64_t num_bytes, bool has_peer) {
  const int64_t size = world.size(), rank = world.rank();
  const int64_t piece = num_bytes / 4 / size, count = piece * size;
  const auto n = static_cast<int>(count), p = static_cast<int>(piece);
  std::vector<float> x(static_cast<size_t>(count)), y(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) x[static_cast<size_t>(i)] = static_cast<float>(i % 7) * 1e-30f;
  const View all(x.data(), DType::kF32, {count}), other(y.data(), DType::kF32, {count});
  const View mine = all.rows(rank * piece, (rank + 1) * piece);
  const std::vector<int64_t> rows(static_cast<size_t>(size), piece);
  const auto ranks = static_cast<double>(size);
  const Case cases[] = {
      {"all_reduce", 2 * ranks, [&] { world.all_reduce(nullptr, all, Reduce::kSum, {.what = "bench"}); },
       [&] { MPI_Allreduce(MPI_IN_PLACE, x.data(), n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD); }},
      {"reduce_scatter", ranks + 1, [&] { world.reduce_scatter(nullptr, other.first(piece), all, {.what = "bench"}); },
       [&] { MPI_Reduce_scatter_block(x.data(), y.data(), p, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD); }},
      {"all_gather", ranks + 1, [&] { world.all_gather(nullptr, all, mine, {.what = "bench"}); },
       [&] { MPI_Allgather(MPI_IN_PLACE, p, MPI_FLOAT, x.data(), p, MPI_FLOAT, MPI_COMM_WORLD); }},
      {"all_to_all_v", 2 * ranks, [&] { world.all_to_all_v(nullptr, other, rows, all, rows, {.what = "bench"}); },
       [&] { MPI_Alltoall(x.data(), p, MPI_FLOAT, y.data(), p, MPI_FLOAT, MPI_COMM_WORLD); }},
  };
  for (const Case& c : cases) {
    const double ours = measure(world, c.ours);
    const double peers = has_peer ? measure(world, c.peers) : 0;
    if (rank != 0) continue;
    const double tensor = static_cast<double>(count) * 4e-9;
    fmt::print("{:15} {:6} KiB  {:9.1f} us  {:6.2f} GB/s of the tensor  {:6.1f} GB/s moved", c.name, num_bytes >> 10,
               ours * 1e6, tensor / ours, tensor * c.times_moved / ours);
    if (has_peer)
      fmt::print("   MPI {:9.1f} us  {:6.2f}  {:6.1f}", peers * 1e6, tensor / peers, tensor * c.times_moved / peers);
    fmt::print("\n");
    std::fflush(stdout);
  }
}

void run(Comm& world, const char* what, bool has_peer) {
  if (world.rank() == 0) fmt::print("{} ranks as {}\n", world.size(), what);
  for (const int64_t num_bytes : kSizes) run_size(world, num_bytes, has_peer);
}

}  // namespace
}  // namespace temper::comm

int main(int argc, char** argv) {
  using namespace temper::comm;
  const auto world = open_world();
  if (world->comm().size() > 1) {
    run(world->comm(), "processes", true);
  } else {
    run_ranks(argc > 1 ? std::atoll(argv[1]) : 2, [](Comm& threads) { run(threads, "threads", false); });
  }
  world->close();
}

// Random layouts over processes: mpirun -n N layouts_test CASES [FIRST]. The first rank prints a line for every case
// that is wrong and one at the end; the exit code is 1 if there was one. See tests/train/random_layouts.h.
#include <fmt/format.h>

#include <cstdlib>

#include "base/error.h"
#include "comm/world.h"
#include "train/random_layouts.h"

int main(int argc, char** argv) {
  using namespace temper;
  const uint64_t num_cases = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 10;
  const uint64_t first = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1000;
  try {
    const auto world = comm::open_world();
    comm::Comm& ranks = world->comm();
    int64_t num_wrong = 0;
    for (uint64_t number = first; number < first + num_cases; ++number) {
      const std::string wrong = train::testing::check_case(ranks, train::testing::random_case(number, ranks.size()));
      if (wrong.empty()) continue;
      ++num_wrong;
      fmt::print("{}\n", wrong);
    }
    if (ranks.rank() == 0)
      fmt::print("{} random layouts of {} ranks from case {}: {} wrong\n", num_cases, ranks.size(), first, num_wrong);
    world->close();
    return num_wrong > 0 ? 1 : 0;
  } catch (const Error& error) {
    fmt::print(stderr, "layouts_test: {}\n", error.what());
    return exit_code(error.code());
  }
}

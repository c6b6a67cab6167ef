#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "comm/shared/shared_comm.h"
#include "comm/world.h"

namespace temper::comm {

void run_ranks(int64_t num_ranks, const std::function<void(Comm& world)>& body) {
  const Block block(create_memory(Block::num_bytes(num_ranks)).memory, num_ranks);
  std::mutex mutex;
  std::exception_ptr cause;
  const auto run = [&](int64_t rank) {
    const auto me = std::make_shared<SharedRank>(block, alone_in_world(rank, num_ranks));
    const std::unique_ptr<Comm> world = SharedComm::world(me);
    const auto failed = [&](const char* why) {
      {
        std::lock_guard lock(mutex);
        if (!cause) cause = std::current_exception();
      }
      world->abort(why);
    };
    try {
      body(*world);
    } catch (const std::exception& error) {
      failed(error.what());
    } catch (...) {
      failed("an exception of unknown type");
    }
  };
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < num_ranks; ++rank) threads.emplace_back(run, rank);
  for (std::thread& thread : threads) thread.join();
  if (cause) std::rethrow_exception(cause);
}

}  // namespace temper::comm

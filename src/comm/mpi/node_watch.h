// News between machines, for errors only: a thread in every process that answers what the ranks of its machine are
// doing, tells when one of them is gone, and hands on why the world has failed. What it cannot see: a machine without a
// process that runs (all its ranks gone or stopped) does not answer, and its ranks are named as silent.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "comm/mpi/mpi_requests.h"
#include "comm/shared/rank.h"

namespace temper::comm {

class NodeWatch {
 public:
  // comm: of the whole world, for this thread alone. here: the ranks of this machine.
  NodeWatch(MPI_Comm comm, std::vector<int64_t> here);
  // Sends what is still to be told, for at most half a second, and ends the thread.
  ~NodeWatch();

  // Before others ask: whose board it reads, and who hears of failures.
  void attend(SharedRank* me);

  // Fills in the ranks of other machines by their answers; those who have not answered in time are silent.
  void ask(std::span<RankReport> by_rank);
  void tell(std::string_view verdict);

 private:
  struct Entry {
    int64_t rank;
    RankReport report;
  };
  void run();
  bool handle_one();
  void send_orders();
  void look_around();
  std::vector<int64_t> ranks_elsewhere() const;

  const MPI_Comm comm_;
  const std::vector<int64_t> here_;
  int world_size_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  SharedRank* me_ = nullptr;         // by mutex_, as all that follows
  bool ask_ = false, stop_ = false;  // orders to the thread
  std::optional<std::string> verdict_;
  std::vector<Entry> answers_;
  std::vector<std::unique_ptr<std::string>> letters_;  // under way; of the thread alone
  Requests under_way_;
  char asking_[1] = {};
  double last_look_ = 0;
  std::thread thread_;
};

}  // namespace temper::comm

#include "comm/mpi/process_world.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <numeric>
#include <sstream>
#include <utility>

#include "base/error.h"
#include "comm/mpi/cores.h"
#include "comm/mpi/mpi_comm.h"
#include "comm/shared/shared_comm.h"

namespace temper::comm {
namespace {

// A process of this machine: its number can be used again, its start not.
struct Process {
  int64_t rank, id;
  uint64_t start;
};

struct ProcessState {
  char state = 'X';
  uint64_t start = 0;
};

// Fields 3 and 22 of /proc/PID/stat (proc(5)); the name in between may hold anything but ends in the last ')'.
ProcessState look_at(int64_t id) {
  std::ifstream file(fmt::format("/proc/{}/stat", id));
  std::string text((std::istreambuf_iterator<char>(file)), {});
  const size_t end_of_name = text.rfind(')');
  if (end_of_name == std::string::npos) return {};
  std::istringstream fields(text.substr(end_of_name + 1));
  ProcessState found;
  std::string skipped;
  fields >> found.state;
  for (int field = 4; field < 22; ++field) fields >> skipped;
  fields >> found.start;
  return found;
}

Life life_of(const Process& process) {
  const ProcessState now = look_at(process.id);
  if (now.start != process.start || now.state == 'X' || now.state == 'Z') return Life::kGone;
  return now.state == 'T' || now.state == 't' ? Life::kStopped : Life::kAlive;
}

int64_t size_of(MPI_Comm comm) {
  int size = 0;
  check_mpi(MPI_Comm_size(comm, &size), "start");
  return size;
}

int64_t rank_in(MPI_Comm comm) {
  int rank = 0;
  check_mpi(MPI_Comm_rank(comm, &rank), "start");
  return rank;
}

MPI_Comm duplicate_world() {
  MPI_Comm copy = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &copy), "start");
  return copy;
}

void start_mpi() {
  int level = 0;
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &level), "start");
  check_mpi(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "start");
  if (level < MPI_THREAD_MULTIPLE) {
    fail(ErrorCode::kUnsupported,
         "this MPI cannot be called from several threads, which ranks need; use another build");
  }
}

}  // namespace

MPI_Comm ProcessWorld::find_node(int64_t ranks_per_node) {
  MPI_Comm node = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node), "start");
  num_cores_ = share_of_cores(node), num_ranks_here_ = size_of(node);
  if (ranks_per_node <= 0) return node;
  MPI_Comm part = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split(node, static_cast<int>(rank_in(node) / ranks_per_node), 0, &part), "start");
  return part;
}

Block ProcessWorld::make_block(MPI_Comm node, int64_t num_ranks) {
  MemoryFile file;
  char path[64] = {};
  if (rank_in(node) == 0) {
    file = create_memory(Block::num_bytes(num_ranks));
    file.path.copy(path, sizeof path - 1);
  }
  check_mpi(MPI_Bcast(path, sizeof path, MPI_BYTE, 0, node), "start");
  const SharedMemory memory = file.memory ? file.memory : open_memory(path, Block::num_bytes(num_ranks));
  check_mpi(MPI_Barrier(node), "start");
  return Block(memory, num_ranks);
}

ProcessWorld::ProcessWorld(int64_t ranks_per_node) {
  start_mpi();
  const MPI_Comm node = find_node(ranks_per_node);
  const Block block = make_block(node, size_of(node));
  const Process mine{rank_in(MPI_COMM_WORLD), getpid(), look_at(getpid()).start};
  std::vector<Process> processes(static_cast<size_t>(block.num_ranks()));
  check_mpi(MPI_Allgather(&mine, sizeof mine, MPI_BYTE, processes.data(), sizeof mine, MPI_BYTE, node), "start");

  Standing standing;
  standing.block_rank = rank_in(node);
  standing.process = mine.id;
  standing.world_size = size_of(MPI_COMM_WORLD);
  standing.life_of = [processes](int64_t rank) { return life_of(processes[static_cast<size_t>(rank)]); };
  for (const Process& p : processes) standing.world_ranks.push_back(p.rank);
  if (standing.world_size == block.num_ranks()) {
    me_ = std::make_shared<SharedRank>(block, std::move(standing));
    comm_ = SharedComm::world(me_);
    return;
  }
  watch_ = std::make_unique<NodeWatch>(duplicate_world(), standing.world_ranks);
  standing.ask_elsewhere = [this](std::span<RankReport> by_rank) { watch_->ask(by_rank); };
  standing.tell_elsewhere = [this](std::string_view verdict) { watch_->tell(verdict); };
  std::vector<int64_t> members(static_cast<size_t>(standing.world_size));
  std::iota(members.begin(), members.end(), 0);
  me_ = std::make_shared<SharedRank>(block, std::move(standing));
  watch_->attend(me_.get());
  comm_ = std::make_unique<MpiComm>(me_, duplicate_world(), std::move(members), "world");
}

void ProcessWorld::close() {
  comm_->barrier(nullptr, {.what = "end"});
  closed_ = true;
}

ProcessWorld::~ProcessWorld() {
  if (!closed_) me_->post_verdict(fmt::format("rank {} ended before the others", me_->rank()));
  comm_.reset();
  watch_.reset();
  // After a failure MPI would wait for ranks that will not come; the launcher clears away what it has left.
  if (closed_) MPI_Finalize();
}

}  // namespace temper::comm

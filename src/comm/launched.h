// Starting ranks: this program, or another, as the ranks of a world.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace temper::comm {

struct RankCommand {
  int64_t num_ranks = 1;
  std::vector<std::string> program;           // with its arguments
  std::vector<std::string> launcher_options;  // "--hostfile", "hosts": of mpirun or srun, as they stand
};

// The command that starts ranks which open_world() will find: srun inside an allocation of Slurm (SLURM_JOB_ID is set),
// else mpirun. Ranks are not bound to cores (they share them out themselves, see World::num_cores).
std::vector<std::string> launch_command(const RankCommand& command);

// Ranks under their launcher. It has a process group of its own, so that Ctrl-C reaches only this process, no input,
// and ends when this process does.
class LaunchedRanks {
 public:
  // Throws kNotFound, naming the package, where there is no launcher, and kIo.
  explicit LaunchedRanks(const std::vector<std::string>& launch_command);
  LaunchedRanks(const LaunchedRanks&) = delete;
  LaunchedRanks& operator=(const LaunchedRanks&) = delete;
  ~LaunchedRanks();  // ends what still runs

  // Whether they have ended; code() is known from then on.
  bool ended();
  // The launcher's: that of the first rank that failed, 128 + its number for a signal.
  int code() const { return code_; }
  // SIGUSR1 to every rank, which train takes for a request to save and stop. (Launchers hand it on; upon SIGTERM they
  // kill.)
  void ask_to_stop();

 private:
  pid_t process_ = 0;  // 0: ended
  int code_ = 0;
};

}  // namespace temper::comm

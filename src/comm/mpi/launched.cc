#include "comm/launched.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "base/error.h"

namespace temper::comm {
namespace {

[[noreturn]] void become(char* const* argv, int report) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  const int nothing = open("/dev/null", O_RDONLY);
  dup2(nothing, STDIN_FILENO);  // of a process group in the background, a read from the terminal would stop it
  execvp(argv[0], argv);
  const int why = errno;
  [[maybe_unused]] const ssize_t written = write(report, &why, sizeof why);
  _exit(127);
}

int code_of(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status); }

}  // namespace

std::vector<std::string> launch_command(const RankCommand& command) {
  std::vector<std::string> argv;
  if (std::getenv("SLURM_JOB_ID")) {
    // A rank that fails ends the others by itself. Where srun did it, the code it ends with would be that of the kill,
    // and not the one that says whether to start again.
    argv = {"srun", "--mpi=pmix", "--kill-on-bad-exit=0", "--ntasks"};
  } else {
    argv = {"mpirun", "--bind-to", "none"};
    if (geteuid() == 0) argv.emplace_back("--allow-run-as-root");
    argv.emplace_back("-n");
  }
  argv.push_back(std::to_string(command.num_ranks));
  argv.insert(argv.end(), command.launcher_options.begin(), command.launcher_options.end());
  argv.insert(argv.end(), command.program.begin(), command.program.end());
  return argv;
}

LaunchedRanks::LaunchedRanks(const std::vector<std::string>& launch_command) {
  std::vector<char*> argv;
  argv.reserve(launch_command.size() + 1);
  for (const std::string& argument : launch_command) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  int report[2];  // closed by a successful exec
  if (pipe2(report, O_CLOEXEC) != 0) fail(ErrorCode::kIo, "cannot make a pipe: {}", std::strerror(errno));
  process_ = fork();
  if (process_ == 0) become(argv.data(), report[1]);
  close(report[1]);
  int why = process_ < 0 ? errno : 0;
  while (process_ > 0 && read(report[0], &why, sizeof why) < 0 && errno == EINTR) {
  }
  close(report[0]);
  if (why == 0) return;
  if (process_ > 0) waitpid(process_, nullptr, 0);
  process_ = 0;
  if (why == ENOENT)
    fail(ErrorCode::kNotFound, "ranks are started by {}, which is not installed{}", argv[0],
         launch_command[0] == "mpirun" ? ": apt-get install openmpi-bin" : ", though SLURM_JOB_ID is set");
  fail(ErrorCode::kIo, "cannot start {}: {}", argv[0], std::strerror(why));
}

LaunchedRanks::~LaunchedRanks() {
  if (process_ == 0) return;
  kill(process_, SIGTERM);
  waitpid(process_, nullptr, 0);
}

bool LaunchedRanks::ended() {
  if (process_ == 0) return true;
  int status = 0;
  if (waitpid(process_, &status, WNOHANG) != process_) return false;
  process_ = 0;
  code_ = code_of(status);
  return true;
}

void LaunchedRanks::ask_to_stop() {
  if (process_ > 0) kill(process_, SIGUSR1);
}

}  // namespace temper::comm

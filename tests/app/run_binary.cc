#include "app/run_binary.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "base/check.h"

extern char** environ;

namespace temper::test {

namespace {

// A started program and the end of the pipe that holds its output.
struct Started {
  pid_t child = 0;
  int output = -1;
};

Started start(const std::vector<std::string>& arguments) {
  const std::string program = std::string(TEMPER_BINARY_DIR) + "/temper";
  std::vector<char*> argv{const_cast<char*>(program.c_str())};
  for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);

  int ends[2];
  CHECK(pipe(ends) == 0);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
  posix_spawn_file_actions_addclose(&actions, ends[0]);
  pid_t child = 0;
  const int error = posix_spawn(&child, program.c_str(), &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  CHECK(error == 0, program, error);

  return {child, ends[0]};
}

RunResult finish(const Started& started) {
  RunResult result;
  std::array<char, 4096> buffer;
  for (ssize_t n; (n = read(started.output, buffer.data(), buffer.size())) > 0;) result.output.append(buffer.data(), n);
  close(started.output);
  int status = 0;
  struct rusage usage {};
  CHECK(wait4(started.child, &status, 0, &usage) == started.child);
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  result.peak_bytes = usage.ru_maxrss * 1024;
  return result;
}

}  // namespace

RunResult run_temper(const std::vector<std::string>& arguments) { return finish(start(arguments)); }

RunResult run_and_act(const std::vector<std::string>& arguments, const std::function<bool()>& should_act,
                      const std::function<void(int process)>& act) {
  const Started started = start(arguments);
  bool acted = false;
  for (siginfo_t ended{}; !acted && ended.si_pid == 0;) {
    if (should_act()) {
      act(started.child);
      acted = true;
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      CHECK(waitid(P_PID, static_cast<id_t>(started.child), &ended, WEXITED | WNOHANG | WNOWAIT) == 0);
    }
  }
  return finish(started);
}

RunResult run_and_signal(const std::vector<std::string>& arguments, int signal,
                         const std::function<bool()>& should_send) {
  return run_and_act(arguments, should_send, [signal](int process) { kill(process, signal); });
}

std::filesystem::path fixture(const std::string& name) {
  return std::filesystem::path(TEMPER_SOURCE_DIR) / "tests/fixtures/v4" / name;
}

}  // namespace temper::test

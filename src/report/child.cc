#include "report/child.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "base/error.h"

namespace temper::report {
namespace {

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

// Nameless files instead of pipes: nobody has to read and write at once.
File temporary_file() {
  File file(std::tmpfile(), std::fclose);
  if (!file) fail(ErrorCode::kIo, "cannot make a temporary file: {}", std::strerror(errno));
  return file;
}

std::string contents_of(std::FILE* file) {
  std::string contents;
  char buffer[1 << 16];
  std::rewind(file);
  while (const size_t n = std::fread(buffer, 1, sizeof buffer, file)) contents.append(buffer, n);
  return contents;
}

}  // namespace

std::string run_child(const std::vector<std::string>& argv, const std::string& input, const std::string& purpose,
                      const std::string& package) {
  const File in = temporary_file(), out = temporary_file(), err = temporary_file();
  if (std::fwrite(input.data(), 1, input.size(), in.get()) != input.size() || std::fflush(in.get()) != 0)
    fail(ErrorCode::kIo, "cannot write a temporary file of {} bytes: {}", input.size(), std::strerror(errno));
  std::rewind(in.get());

  std::vector<char*> arguments;
  arguments.reserve(argv.size() + 1);
  for (const std::string& argument : argv) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, fileno(in.get()), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, fileno(out.get()), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, fileno(err.get()), STDERR_FILENO);
  pid_t child = 0;
  const int refused = posix_spawnp(&child, argv[0].c_str(), &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (refused == ENOENT) {
    fail(ErrorCode::kNotFound, "{} needs {}, which is not installed: apt-get install {}", purpose, argv[0], package);
  }
  if (refused != 0) fail(ErrorCode::kIo, "cannot start {}: {}", argv[0], std::strerror(refused));

  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    fail(ErrorCode::kIo, "{} failed ({} {}): {}", argv[0], WIFEXITED(status) ? "exit code" : "signal",
         WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status), contents_of(err.get()).substr(0, 1000));
  }
  return contents_of(out.get());
}

}  // namespace temper::report

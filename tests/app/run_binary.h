// Runs the built temper program as a user would.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace temper::test {

struct RunResult {
  int exit_code = -1;
  std::string output;      // stdout and stderr together
  int64_t peak_bytes = 0;  // of memory, pages of mapped files included
};

RunResult run_temper(const std::vector<std::string>& arguments);

// The same; act(process) is called once should_act() says so, which is asked every few milliseconds.
RunResult run_and_act(const std::vector<std::string>& arguments, const std::function<bool()>& should_act,
                      const std::function<void(int process)>& act);

// The same; the program gets a signal once should_send() says so.
RunResult run_and_signal(const std::vector<std::string>& arguments, int signal,
                         const std::function<bool()>& should_send);

// tests/fixtures/v4/<name>, a directory that transformers wrote.
std::filesystem::path fixture(const std::string& name);

}  // namespace temper::test

#include "train/supervisor.h"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <limits>
#include <mutex>

#include "base/error.h"

namespace temper::train {
namespace {

// A signal handler can reach nothing but a static, and runs in whatever thread the signal finds.
std::atomic<int> received_signal = 0;
static_assert(std::atomic<int>::is_always_lock_free);
// Requests that live: ranks that are threads of one process have one each.
std::mutex requests_mutex;
int64_t num_requests = 0;

void on_signal(int signal) {
  // As a shell reports it; nothing is flushed, the last state is whole.
  if (received_signal.exchange(signal) != 0) _exit(128 + signal);
}

int signal_number(std::string_view name) {
  if (name == "USR1") return SIGUSR1;
  if (name == "USR2") return SIGUSR2;
  return name == "HUP" ? SIGHUP : 0;
}

void handle(int signal, void (*handler)(int)) {
  if (signal == 0) return;
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;  // reads and writes under way go on
  sigemptyset(&action.sa_mask);
  sigaction(signal, &action, nullptr);
}

}  // namespace

void with_place(int64_t step, const std::function<std::string()>& place, const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kPeer) throw;  // has the places of all ranks in it
    throw Error(error.code(), fmt::format("step {}, {}: {}", step, place(), error.what()));
  }
}

StopRequest::StopRequest(std::string_view warning_signal) : warning_signal_(signal_number(warning_signal)) {
  std::lock_guard lock(requests_mutex);
  if (num_requests++ > 0) return;
  received_signal = 0;
  for (const int signal : {SIGINT, SIGTERM, warning_signal_}) handle(signal, on_signal);
}

StopRequest::~StopRequest() {
  std::lock_guard lock(requests_mutex);
  if (--num_requests > 0) return;
  for (const int signal : {SIGINT, SIGTERM, warning_signal_}) handle(signal, SIG_DFL);
}

std::string StopRequest::signal_name() const {
  switch (received_signal) {
    case 0:
      return "";
    case SIGINT:
      return "SIGINT";
    case SIGTERM:
      return "SIGTERM";
    case SIGUSR1:
      return "SIGUSR1";
    case SIGUSR2:
      return "SIGUSR2";
    default:
      return "SIGHUP";
  }
}

double seconds_to_job_end() {
  const char* end = std::getenv("SLURM_JOB_END_TIME");
  const double seconds = end ? std::strtod(end, nullptr) : 0;
  if (seconds <= 0) return std::numeric_limits<double>::infinity();
  return seconds - std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace temper::train

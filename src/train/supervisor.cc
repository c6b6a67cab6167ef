#include "train/supervisor.h"

#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <limits>

#include "base/error.h"

namespace temper::train {
namespace {

// A signal handler can reach nothing but a static.
volatile std::sig_atomic_t received_signal = 0;

void on_signal(int signal) {
  if (received_signal != 0) _exit(128 + signal);  // as a shell reports it; nothing is flushed, the last state is whole
  received_signal = signal;
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
  received_signal = 0;
  for (const int signal : {SIGINT, SIGTERM, warning_signal_}) handle(signal, on_signal);
}

StopRequest::~StopRequest() {
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

#include "train/supervisor.h"

#include <csignal>

#include "base/error.h"

namespace temper::train {
namespace {

// A signal handler can reach nothing but a static.
volatile std::sig_atomic_t stop_requested = 0;

void on_signal(int signal) {
  stop_requested = 1;
  std::signal(signal, SIG_DFL);
}

}  // namespace

void with_place(int64_t step, const std::function<std::string()>& place, const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("step {}, {}: {}", step, place(), error.what()));
  }
}

StopRequest::StopRequest() {
  stop_requested = 0;
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
}

StopRequest::~StopRequest() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

bool StopRequest::requested() const { return stop_requested != 0; }

}  // namespace temper::train

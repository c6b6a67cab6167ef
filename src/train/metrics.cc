#include "train/metrics.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "tensor/book.h"

namespace temper::train {
namespace {

double unix_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string format_duration(double seconds) {
  const int64_t s = std::llround(seconds);
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

// A line that is longer wraps, and the next one would not cover it.
size_t terminal_columns(std::FILE* stream) {
  winsize size{};
  return ioctl(fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col : 80;
}

}  // namespace

MetricsFile::MetricsFile(const std::filesystem::path& path) : path_(path), file_(std::fopen(path.c_str(), "w")) {
  if (!file_) fail(ErrorCode::kIo, "cannot write {}: {}", path.string(), std::strerror(errno));
}

MetricsFile::~MetricsFile() { std::fclose(file_); }

void MetricsFile::write(const StepReport& report) {
  const StepResult& r = report.result;
  nlohmann::ordered_json line = {{"step", report.step},
                                 {"loss", r.loss},
                                 {"mtp_loss", r.mtp_loss},
                                 {"balance_loss", r.balance_loss},
                                 {"indexer_loss", r.indexer_loss},
                                 {"expert_overload", r.expert_overload},
                                 {"grad_norm", r.norms.global},
                                 {"learning_rate", r.learning_rate},
                                 {"mean_token_accuracy", r.mean_token_accuracy},
                                 {"num_tokens", report.total_tokens},
                                 {"epoch", report.epoch},
                                 {"tokens_per_second", report.tokens_per_second},
                                 {"mfu", report.mfu},
                                 {"step_ms", 1e3 * report.step_seconds},
                                 {"data_ms", 1e3 * report.data_seconds},
                                 {"forward_ms", 1e3 * r.forward_seconds},
                                 {"backward_ms", 1e3 * r.backward_seconds},
                                 {"optimizer_ms", 1e3 * r.optimizer_seconds},
                                 {"memory_bytes", report.memory_bytes},
                                 {"wall_time", unix_seconds()}};
  for (int g = 0; g < optim::kNumParameterGroups; ++g) {
    line[fmt::format("grad_norm/{}", optim::group_name(static_cast<optim::ParameterGroup>(g)))] = r.norms.group[g];
  }
  write_line(line.dump());
}

void MetricsFile::write_eval(int64_t step, double loss, double accuracy, int64_t num_targets) {
  const nlohmann::ordered_json line = {{"step", step},
                                       {"eval_loss", loss},
                                       {"eval_mean_token_accuracy", accuracy},
                                       {"eval_num_tokens", num_targets},
                                       {"wall_time", unix_seconds()}};
  write_line(line.dump());
}

void MetricsFile::write_line(const std::string& line) {
  if (std::fprintf(file_, "%s\n", line.c_str()) < 0 || std::fflush(file_) != 0) {
    fail(ErrorCode::kIo, "cannot write {}: {}", path_.string(), std::strerror(errno));
  }
}

std::string progress_line(const StepReport& report, const RunScale& scale, double seconds_left) {
  const StepResult& r = report.result;
  return fmt::format(
      "step {}/{}  ETA {}  loss {:.4f}  grad norm {:.3g}  lr {:.2e}  {:.0f} tokens/s  MFU {:.1f}% of {}  memory {}, "
      "plan {}",
      report.step, scale.total_steps, format_duration(seconds_left), r.loss, r.norms.global, r.learning_rate,
      report.tokens_per_second, 100 * report.mfu, scale.peak.name, format_bytes(report.memory_bytes),
      format_bytes(scale.planned_bytes));
}

Progress::Progress(std::FILE* stream, RunScale scale, int64_t log_every)
    : stream_(stream), scale_(std::move(scale)), log_every_(log_every), terminal_(isatty(fileno(stream)) == 1) {}

void Progress::update(const StepReport& report, double seconds_left) {
  const std::string line = progress_line(report, scale_, seconds_left);
  if (terminal_) {
    fmt::print(stream_, "\r{}\x1b[K", std::string_view(line).substr(0, terminal_columns(stream_) - 1));
    line_open_ = true;
  } else if (report.step % log_every_ == 0 || report.step == scale_.total_steps) {
    fmt::print(stream_, "{}\n", line);
  }
  std::fflush(stream_);
}

void Progress::note(const std::string& text) {
  finish();
  fmt::print(stream_, "{}\n", text);
  std::fflush(stream_);
}

void Progress::finish() {
  if (line_open_) fmt::print(stream_, "\n");
  line_open_ = false;
  std::fflush(stream_);
}

int64_t peak_resident_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6)) * 1024;
  }
  return 0;
}

void reset_peak_resident() { std::ofstream("/proc/self/clear_refs") << "5"; }

}  // namespace temper::train

#include "train/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cmath>

#include "tensor/book.h"

namespace temper::train {
namespace {

std::string format_duration(double seconds) {
  const int64_t s = std::llround(seconds);
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

// 0: not a terminal. Nor is what mpirun gives its ranks, whatever it writes to itself: a terminal without a size.
size_t terminal_columns(std::FILE* stream) {
  winsize size{};
  return stream && ioctl(fileno(stream), TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

// Early in the line, where a narrow terminal still shows it.
std::string trouble(const StepReport& report) {
  std::string text;
  if (report.skipped) text += "  SKIPPED";
  if (report.num_skipped > 0) text += fmt::format("  skipped {}", report.num_skipped);
  if (report.num_incidents > 0) text += fmt::format("  incidents {}", report.num_incidents);
  return text;
}

}  // namespace

std::string progress_line(const StepReport& report, const RunScale& scale, double seconds_left) {
  const StepResult& r = report.result;
  return fmt::format(
      "step {}/{}  ETA {}{}  loss {:.4f}  grad norm {:.3g}  lr {:.2e}  {:.0f} tokens/s  MFU {:.1f}% of {}  memory {}, "
      "plan {}",
      report.step, scale.total_steps, format_duration(seconds_left), trouble(report), r.loss, r.norms.global,
      r.learning_rate, report.tokens_per_second, 100 * report.mfu, scale.peak.name, format_bytes(report.memory_bytes),
      format_bytes(scale.planned_bytes));
}

Progress::Progress(std::FILE* stream, RunScale scale, int64_t log_every)
    : stream_(stream), scale_(std::move(scale)), log_every_(log_every), terminal_(terminal_columns(stream) > 1) {}

Progress::~Progress() {
  if (line_open_) finish();
}

void Progress::update(const StepReport& report, double seconds_left) {
  if (!stream_) return;
  const std::string line = progress_line(report, scale_, seconds_left);
  if (terminal_) {
    const size_t columns = std::max<size_t>(terminal_columns(stream_), 2);  // a longer line wraps, and is not covered
    fmt::print(stream_, "\r{}\x1b[K", std::string_view(line).substr(0, columns - 1));
    line_open_ = true;
    if (report.skipped) finish();
  } else if (report.step % log_every_ == 0 || report.step == scale_.total_steps || report.skipped) {
    fmt::print(stream_, "{}\n", line);
  }
  std::fflush(stream_);
}

void Progress::note(const std::string& text) {
  if (text.empty() || !stream_) return;
  finish();
  fmt::print(stream_, "{}\n", text);
  std::fflush(stream_);
}

void Progress::finish() {
  if (!stream_) return;
  if (line_open_) fmt::print(stream_, "\n");
  line_open_ = false;
  std::fflush(stream_);
}

}  // namespace temper::train

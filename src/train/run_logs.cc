#include "train/run_logs.h"

#include "base/error.h"

namespace temper::train {
namespace {

int64_t length_of(const RunLogs::Lengths& lengths, const char* name) {
  const auto found = lengths.find(name);
  return found == lengths.end() ? 0 : found->second;
}

}  // namespace

RunLogs::RunLogs(const std::filesystem::path& dir, const Lengths& keep, Files& files)
    : metrics_(dir / kMetricsFileName, length_of(keep, kMetricsFileName), files),
      events_(dir / kEventFileName, length_of(keep, kEventFileName), files) {}

RunLogs::Lengths RunLogs::lengths() const {
  return {{kMetricsFileName, metrics_.position()}, {kEventFileName, events_.position()}};
}

void RunLogs::sync() {
  const bool metrics = metrics_.sync(), events = events_.sync();
  if (!metrics || !events)
    fail(ErrorCode::kIo, "{} cannot be written to the disk", metrics ? kEventFileName : kMetricsFileName);
}

std::string RunLogs::take_news() {
  const std::string news = metrics_.take_news();
  return news.empty() ? events_.take_news() : news;
}

}  // namespace temper::train

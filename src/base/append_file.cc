#include "base/append_file.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace temper {

AppendFile::AppendFile(const std::filesystem::path& path, int64_t keep_bytes, Files& files)
    : path_(path), file_(files.append(path, keep_bytes)) {
  written_bytes_ = file_->size();
  missing_bytes_ = std::max<int64_t>(0, keep_bytes - written_bytes_);
  files.sync_directory(path.parent_path());
}

AppendFile::~AppendFile() { write_pending(); }

void AppendFile::write(std::string_view record) {
  const std::lock_guard lock(mutex_);
  if (static_cast<int64_t>(pending_.size() + record.size()) > kMaxPendingBytes) write_pending();
  if (static_cast<int64_t>(pending_.size() + record.size()) > kMaxPendingBytes) {
    if (lost_records_++ == 0)
      news_ = fmt::format("{}: {} bytes wait for the disk, no more are kept: records are lost from here on",
                          path_.string(), pending_.size());
    return;
  }
  pending_ += record;
  write_pending();
}

bool AppendFile::sync() {
  const std::lock_guard lock(mutex_);
  if (!write_pending()) return false;
  try {
    file_->sync();
  } catch (const Error& error) {
    sync_fails_ = true;
    refused(error.what(), "a crash of the machine may cost the newest records");
    return false;
  }
  sync_fails_ = false;
  accepted();
  return true;
}

int64_t AppendFile::position() const {
  const std::lock_guard lock(mutex_);
  return written_bytes_ + static_cast<int64_t>(pending_.size());
}

int64_t AppendFile::pending_bytes() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int64_t>(pending_.size());
}

int64_t AppendFile::lost_records() const {
  const std::lock_guard lock(mutex_);
  return lost_records_;
}

std::string AppendFile::take_news() {
  const std::lock_guard lock(mutex_);
  return std::exchange(news_, {});
}

// An Error is not passed on: the log of a run is worth less than the run.
bool AppendFile::write_pending() {
  if (pending_.empty()) return true;
  try {
    cut_back();
    torn_ = true;
    file_->write(pending_.data(), static_cast<int64_t>(pending_.size()));
  } catch (const Error& error) {
    refused(error.what(), "records are kept in memory and written as soon as the disk takes them");
    try {
      cut_back();
    } catch (const Error&) {  // the next try begins with it
    }
    return false;
  }
  torn_ = false;
  written_bytes_ += static_cast<int64_t>(pending_.size());
  pending_.clear();
  if (!sync_fails_) accepted();
  return true;
}

void AppendFile::cut_back() {
  if (torn_) file_->truncate(written_bytes_);
  torn_ = false;
}

void AppendFile::refused(const std::string& reason, const char* consequence) {
  if (!std::exchange(refuses_, true)) news_ = fmt::format("{}; the run goes on: {}", reason, consequence);
}

void AppendFile::accepted() {
  if (std::exchange(refuses_, false))
    news_ = fmt::format("{}: the disk takes records again, all that were kept are written", path_.string());
}

}  // namespace temper

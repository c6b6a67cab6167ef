#include "base/append_file.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace temper {

AppendFile::AppendFile(const std::filesystem::path& path, int64_t keep_bytes, Files& files)
    : path_(path), file_(files.append(path, keep_bytes)) {
  synced_bytes_ = file_->size();
  missing_bytes_ = std::max<int64_t>(0, keep_bytes - synced_bytes_);
  files.sync_directory(path.parent_path());
}

AppendFile::~AppendFile() { write_kept(); }

void AppendFile::write(std::string_view record) {
  const std::lock_guard lock(mutex_);
  const auto is_full = [&] { return static_cast<int64_t>(kept_.size() + record.size()) > kMaxKeptBytes; };
  if (is_full()) sync_file();
  if (is_full()) {
    if (lost_records_++ == 0)
      news_ = fmt::format("{}: {} bytes wait for the disk, no more are kept: records are lost from here on",
                          path_.string(), kept_.size());
    return;
  }
  kept_ += record;
  write_kept();
}

bool AppendFile::sync() {
  const std::lock_guard lock(mutex_);
  return sync_file();
}

int64_t AppendFile::position() const {
  const std::lock_guard lock(mutex_);
  return synced_bytes_ + static_cast<int64_t>(kept_.size());
}

int64_t AppendFile::pending_bytes() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int64_t>(kept_.size()) - written_bytes_;
}

int64_t AppendFile::lost_records() const {
  const std::lock_guard lock(mutex_);
  return lost_records_;
}

std::string AppendFile::take_news() {
  const std::lock_guard lock(mutex_);
  return std::exchange(news_, {});
}

// An Error is not passed on, here and in sync_file: the log of a run is worth less than the run.
bool AppendFile::write_kept() {
  const auto count = static_cast<int64_t>(kept_.size()) - written_bytes_;
  if (count == 0) return true;
  try {
    cut_back();
    is_torn_ = true;
    file_->write(kept_.data() + written_bytes_, count);
  } catch (const Error& error) {
    refused(error.what());
    try {
      cut_back();
    } catch (const Error&) {  // the next try begins with it
    }
    return false;
  }
  is_torn_ = false;
  written_bytes_ += count;
  if (!sync_failed_) accepted();
  return true;
}

bool AppendFile::sync_file() {
  if (!write_kept()) return false;
  try {
    file_->sync();
  } catch (const Error& error) {
    refused(error.what());
    sync_failed_ = is_torn_ = true;
    written_bytes_ = 0;  // any of it may be gone, and no later sync would say so
    return false;
  }
  synced_bytes_ += std::exchange(written_bytes_, 0);
  kept_.clear();
  sync_failed_ = false;
  accepted();
  return true;
}

void AppendFile::cut_back() {
  if (is_torn_) file_->truncate(synced_bytes_ + written_bytes_);
  is_torn_ = false;
}

void AppendFile::refused(const std::string& reason) {
  if (!std::exchange(refuses_, true))
    news_ =
        fmt::format("{}; the run goes on, the records are kept in memory and written when the disk takes them", reason);
}

void AppendFile::accepted() {
  if (std::exchange(refuses_, false))
    news_ = fmt::format("{}: the disk takes records again, all that were kept are written", path_.string());
}

}  // namespace temper

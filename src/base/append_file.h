// An append-only log of whole records, for a run that goes on when the disk is full.
//
// A record is written at once; one that the disk refuses is kept in memory and tried again, in order, with the next
// write or sync; a part of it that stands in the file is cut off. What a failed sync may have lost is written again:
// the bytes since the last sync() are kept in memory. After a crash, these may be missing or torn in the file: sync
// before something else (a run state) names position().
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "base/files.h"

namespace temper {

// Any thread may call any function.
class AppendFile {
 public:
  // Most bytes kept in memory. A log that has more of them since its last sync is synced; if the disk refuses that,
  // records are lost from there on, counted and told by take_news.
  static constexpr int64_t kMaxKeptBytes = 64 << 20;

  // Opens path to go on after its first keep_bytes: 0 begins anew, a longer file is cut back. Throws Error kIo.
  AppendFile(const std::filesystem::path& path, int64_t keep_bytes, Files& files = system_files());
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;
  ~AppendFile();  // tries once more to write what is pending

  // By how many bytes the file was shorter than keep_bytes: 0 unless the disk lost something. Its last record may then
  // be torn; who knows the format finds the end of the last whole one and opens the file again with that length.
  int64_t missing_bytes() const { return missing_bytes_; }

  void write(std::string_view record);
  // True if every record that was taken is on the disk.
  bool sync();

  int64_t position() const;       // bytes in the file and pending
  int64_t pending_bytes() const;  // in memory only
  int64_t lost_records() const;   // refused by disk and memory

  // What the user should be told: once when the disk begins to refuse, when records are first lost, and when all that
  // was pending is written; empty if there is nothing new.
  std::string take_news();

 private:
  bool write_kept();  // true if all that is kept stands in the file
  bool sync_file();
  void cut_back();  // removes what stands in the file and is not known to be right
  void refused(const std::string& reason);
  void accepted();

  const std::filesystem::path path_;
  mutable std::mutex mutex_;
  std::unique_ptr<OutputFile> file_;
  int64_t missing_bytes_ = 0;
  int64_t synced_bytes_ = 0;   // of the file
  std::string kept_;           // whole records after those
  int64_t written_bytes_ = 0;  // of kept_, in the file
  bool is_torn_ = false;       // the file may hold other bytes behind these
  bool sync_failed_ = false;   // and has not succeeded since
  bool refuses_ = false;       // told, and not yet told that it is over
  int64_t lost_records_ = 0;
  std::string news_;
};

}  // namespace temper

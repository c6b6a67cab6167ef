#include "train/run_dir.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>

#include "base/error.h"
#include "checkpoint/model_dir.h"
#include "train/answers.h"
#include "train/event_file.h"
#include "train/metrics.h"

namespace temper::train {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> list(const fs::path& directory) {
  std::error_code error;
  std::vector<fs::path> entries;
  for (auto entry = fs::directory_iterator(directory, error); !error && entry != fs::directory_iterator();
       entry.increment(error))
    entries.push_back(entry->path());
  if (error && error != std::errc::no_such_file_or_directory)
    fail(ErrorCode::kIo, "cannot list {}: {}", directory.string(), error.message());
  return entries;
}

// Names that only a run makes; a run is removed by removing them.
bool is_of_a_run(const fs::path& entry) {
  const std::string name = entry.filename().string();
  return name == "run.json" || name == "state" || name == "model" || name == kMetricsFileName ||
         name == kEventFileName || name == kSamplesFileName || name.starts_with("step-") ||
         name.starts_with("incident-");
}

// run.json goes last: what a killed removal leaves is still a run, which begins anew when it has no states.
void remove_run(const std::vector<fs::path>& entries) {
  std::error_code error;
  for (const bool description : {false, true}) {
    for (const fs::path& entry : entries) {
      if (!is_of_a_run(entry) || (entry.filename() == "run.json") != description) continue;
      fs::remove_all(entry, error);
      if (error) fail(ErrorCode::kIo, "cannot remove {}: {}", entry.string(), error.message());
    }
  }
}

// The directory and those above it that are not there, inner ones first.
std::vector<fs::path> missing(fs::path directory) {
  std::error_code error;
  std::vector<fs::path> list;
  for (directory = fs::absolute(directory); !fs::exists(directory, error); directory = directory.parent_path())
    list.push_back(directory);
  return list;
}

int lock(const fs::path& directory) {
  const int descriptor = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0 || ::flock(descriptor, LOCK_EX | LOCK_NB) == 0) return descriptor;
  ::close(descriptor);
  fail(ErrorCode::kInvalidArgument,
       "another process is training in {}; wait for it, stop it, or give another output.dir", directory.string());
}

}  // namespace

RunDir::RunDir(fs::path path, Start start) : path_(std::move(path)) {
  if (start == Start::kReplay) return;
  std::vector<fs::path> entries = list(path_);
  // What a kill leaves of the very first file that a run writes.
  std::erase_if(entries, [](const fs::path& entry) { return entry.filename().string().starts_with("run.json."); });
  const bool holds_run = fs::exists(description());
  if (holds_run && start == Start::kFresh)
    fail(ErrorCode::kInvalidArgument,
         "{} holds a run. Leave --fresh away to go on with it, give --fresh --force to remove it and begin anew, or "
         "another output.dir",
         path_.string());
  if (!holds_run && !entries.empty() && start != Start::kFreshForce)
    fail(ErrorCode::kInvalidArgument,
         "{} is not empty and holds no run ({} is there); give another output.dir, or --fresh --force to begin a run "
         "beside what is there",
         path_.string(), entries.front().filename().string());
  made_ = missing(path_);
  checkpoint::check_save_dir(path_, /*overwrite=*/true);
  lock_ = lock(path_);
  if (holds_run && start == Start::kFreshForce) remove_run(entries);
}

RunDir::~RunDir() {
  for (const fs::path& directory : made_) ::rmdir(directory.c_str());  // does nothing where there is something
  if (lock_ >= 0) ::close(lock_);
}

std::string RunDir::why_not_shared() const {
  if (access(path_.c_str(), W_OK | X_OK) == 0) return "";
  return fmt::format(
      "cannot write into {}: {}; every rank does, so output.dir must be on a disk that all machines share",
      path_.string(), std::strerror(errno));
}

bool RunDir::has_model() const { return fs::exists(model() / "config.json"); }

}  // namespace temper::train

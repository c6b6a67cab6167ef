#include "checkpoint/save_dir.h"

#include <unistd.h>

#include <algorithm>
#include <system_error>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/tensor_dir.h"

namespace temper::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr const char* kStagingName = ".saving";

void check(const std::error_code& error, const char* action, const fs::path& path) {
  if (error) fail(ErrorCode::kIo, "cannot {} {}: {}", action, path.string(), error.message());
}

std::vector<std::string> list(const fs::path& dir) {
  std::error_code error;
  fs::directory_iterator entries(dir, error);
  check(error, "list", dir);
  std::vector<std::string> names;
  for (const auto& entry : entries) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

bool is_weight_file(const std::string& name) {
  return name == kSingleFileName || name == kIndexFileName ||
         (name.starts_with("model-") && name.ends_with(".safetensors"));
}

void check_save_dir(const fs::path& dir, bool overwrite) {
  std::error_code error;
  if (fs::exists(dir, error) && !fs::is_directory(dir, error))
    fail(ErrorCode::kInvalidArgument, "{}: the model is to be written here, but this is a file; give a directory",
         dir.string());
  fs::create_directories(dir, error);
  check(error, "create the directory", dir);
  auto names = list(dir);
  std::erase(names, kStagingName);
  if (!names.empty() && !overwrite)
    fail(ErrorCode::kInvalidArgument,
         "{}: the model is to be written here, but the directory is not empty: it holds {}{}; give another one or ask "
         "to "
         "overwrite",
         dir.string(), names.front(), names.size() > 1 ? fmt::format(" and {} more", names.size() - 1) : "");
  if (::access(dir.c_str(), W_OK | X_OK) != 0)
    fail(ErrorCode::kIo, "{}: the model is to be written here, but the directory is not writable", dir.string());
}

void make_folder_in(const fs::path& dir, const fs::path& name) {
  const fs::path folder = dir / name.parent_path();
  if (name.has_parent_path() && fs::is_symlink(folder))
    fail(ErrorCode::kInvalidArgument, "{}: a link; files are written only below the directory itself. Remove the link",
         folder.string());
  std::error_code error;
  fs::create_directories(folder, error);
  check(error, "create the folder", folder);
}

SaveDir::SaveDir(const fs::path& dir, bool overwrite) : dir_(dir), staging_(dir / kStagingName) {
  check_save_dir(dir, overwrite);
  std::error_code error;
  fs::remove_all(staging_, error);
  check(error, "remove", staging_);
  const bool is_new = fs::create_directory(staging_, error);
  check(error, "create the directory", staging_);
  if (!is_new)
    fail(ErrorCode::kIo, "cannot create the directory {}: another program is writing here", staging_.string());
}

SaveDir::~SaveDir() {
  std::error_code error;  // the exception on its way says more than a failure to clean up
  fs::remove_all(staging_, error);
}

fs::path SaveDir::stage(const std::string& name) {
  std::error_code error;
  fs::create_directories((staging_ / name).parent_path(), error);
  check(error, "create the folder of", staging_ / name);
  names_.push_back(name);
  return staging_ / name;
}

void SaveDir::commit(const std::string& config_json) {
  std::error_code error;
  for (const auto& name : list(dir_)) {
    if (!is_weight_file(name) || std::find(names_.begin(), names_.end(), name) != names_.end()) continue;
    fs::remove(dir_ / name, error);
    check(error, "remove", dir_ / name);
  }
  for (const auto& name : names_) {
    make_folder_in(dir_, name);
    fs::rename(staging_ / name, dir_ / name, error);
    check(error, "move a finished file to", dir_ / name);
  }
  write_file_atomically(dir_ / "config.json", config_json);  // syncs the directory, and with it the moves
}

}  // namespace temper::checkpoint

#include "checkpoint/rewrite_staging.h"

#include <algorithm>
#include <system_error>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/save_dir.h"

namespace temper::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFolder = ".converting";
constexpr const char* kPlan = "plan";

void check(const std::error_code& error, const char* action, const fs::path& path) {
  if (error) fail(ErrorCode::kIo, "cannot {} {}: {}", action, path.string(), error.message());
}

void remove_tree(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  check(error, "remove", path);
}

bool is_plan(const fs::path& path, const std::string& plan) { return fs::exists(path) && read_file(path) == plan; }

}  // namespace

RewriteStaging::RewriteStaging(fs::path destination, const std::string& plan, bool overwrite)
    : destination_(std::move(destination)), folder_(destination_ / kFolder) {
  if (fs::is_symlink(folder_)) fs::remove(folder_);
  if (is_plan(folder_ / kPlan, plan)) return;
  if (fs::exists(folder_ / kPlan) && !overwrite)
    fail(ErrorCode::kInvalidArgument,
         "{}: an unfinished conversion from another source, with other options or by another version lies here; repeat "
         "that one to finish it, or ask to overwrite, or give another directory",
         destination_.string());
  remove_tree(folder_);
  check_save_dir(destination_, overwrite);
  write(kPlan, plan);
}

fs::path RewriteStaging::part(const std::string& name) const { return folder_ / (name + ".part"); }

void RewriteStaging::finish(const std::string& name, const std::string& receipt) {
  std::error_code error;
  fs::rename(part(name), folder_ / name, error);
  check(error, "rename", part(name));
  write(name + ".receipt", receipt);  // syncs the folder, and with it the name
}

void RewriteStaging::write(const std::string& name, const std::string& contents) {
  make_folder_in(folder_, name);
  write_file_atomically(folder_ / name, contents);
}

std::string RewriteStaging::receipt(const std::string& name) const { return read_file(folder_ / (name + ".receipt")); }

std::optional<RewriteStaging::Finished> RewriteStaging::find_finished(const std::string& name) const {
  if (!fs::exists(folder_ / (name + ".receipt"))) return std::nullopt;
  for (const fs::path& path : {folder_ / name, destination_ / name})  // the latter: stopped while moving up
    if (fs::exists(path)) return Finished{path, receipt(name)};
  return std::nullopt;
}

void RewriteStaging::commit(const std::vector<std::string>& names, const std::string& config_json) {
  std::error_code error;
  fs::remove(destination_ / "config.json", error);  // from here on the older model is no model
  check(error, "remove", destination_ / "config.json");
  for (const auto& entry : fs::directory_iterator(destination_)) {
    const std::string name = entry.path().filename().string();
    if (is_weight_file(name) && std::find(names.begin(), names.end(), name) == names.end()) remove_tree(entry.path());
  }
  for (const auto& name : names) {
    if (!fs::exists(folder_ / name)) continue;  // an earlier run moved it
    make_folder_in(destination_, name);
    fs::rename(folder_ / name, destination_ / name, error);
    check(error, "move a finished file to", destination_ / name);
  }
  write_file_atomically(destination_ / "config.json", config_json);  // syncs the directory, and with it the moves
  remove_tree(folder_);
}

}  // namespace temper::checkpoint

#include "base/path_inside.h"

#include <algorithm>

#include "base/error.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

bool is_below(const fs::path& path, const fs::path& root) {
  return std::mismatch(root.begin(), root.end(), path.begin(), path.end()).first == root.end();
}

}  // namespace

fs::path path_inside(const fs::path& dir, const fs::path& name) {
  const fs::path path = dir / name;
  std::error_code error;
  if (!fs::exists(fs::symlink_status(path, error))) return path;
  const fs::path target = fs::canonical(path, error);
  if (error)
    fail(ErrorCode::kInvalidArgument, "{}: a link that cannot be followed: {}", path.string(), error.message());
  const fs::path root = fs::canonical(dir), holder = root.parent_path();
  if (is_below(target, root)) return path;
  if (holder.filename() == "snapshots" && is_below(target, holder.parent_path() / "blobs")) return path;
  fail(ErrorCode::kInvalidArgument,
       "{}: a link to {}, outside of the directory; only links of the Hugging Face cache may lead there. Put the file "
       "itself into the directory, or give the directory that has it",
       path.string(), target.string());
}

}  // namespace temper

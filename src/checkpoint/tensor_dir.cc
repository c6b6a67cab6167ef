#include "checkpoint/tensor_dir.h"

#include <map>
#include <set>
#include <unordered_map>

#include "base/error.h"
#include "base/json.h"
#include "base/path_inside.h"

namespace temper::checkpoint {
namespace {

namespace fs = std::filesystem;

// File name by tensor name.
std::map<std::string, std::string> read_index(const fs::path& path) {
  const auto json = parse_json<nlohmann::json>(read_file(path), path.string(), 8);
  const auto weights = json.is_object() ? json.find("weight_map") : json.end();
  if (!json.is_object() || weights == json.end() || !weights->is_object())
    fail(ErrorCode::kCorrupt, "{}: expected an object with an object weight_map", path.string());
  std::map<std::string, std::string> files;
  for (const auto& [tensor, value] : weights->items()) {
    if (!value.is_string())
      fail(ErrorCode::kCorrupt, "{}: tensor {}: expected a file name, found {}", path.string(), tensor,
           describe_json(value));
    const auto& name = value.get_ref<const std::string&>();
    if (!name.ends_with(".safetensors") || name.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos)
      fail(ErrorCode::kCorrupt, "{}: tensor {}: {} is not the name of a safetensors file in this directory",
           path.string(), tensor, describe_json(value));
    files[tensor] = name;
  }
  return files;
}

}  // namespace

bool TensorDir::exists(const fs::path& dir) {
  return fs::exists(dir / kSingleFileName) || fs::exists(dir / kIndexFileName);
}

TensorDir::TensorDir(const fs::path& dir) {
  if (!exists(dir))
    fail(ErrorCode::kNotFound, "{}: found neither {} nor {}; expected a Hugging Face model directory", dir.string(),
         kSingleFileName, kIndexFileName);
  if (fs::exists(dir / kSingleFileName)) {
    open(path_inside(dir, kSingleFileName));
    return;
  }
  const auto index = read_index(path_inside(dir, kIndexFileName));
  std::set<std::string> names;
  for (const auto& [tensor, file] : index) names.insert(file);
  for (const auto& name : names) open(path_inside(dir, name));
  std::unordered_map<std::string_view, const SafetensorsFile*> found;
  for (const auto& [tensor, file] : items_)
    if (const auto [at, is_new] = found.emplace(tensor->name, file); !is_new)
      fail(ErrorCode::kCorrupt, "{}: tensor {} is in {} and in {}", dir.string(), tensor->name,
           at->second->path().filename().string(), file->path().filename().string());
  for (const auto& [tensor, file] : index)
    if (const auto at = found.find(tensor); at == found.end() || at->second->path().filename() != file)
      fail(ErrorCode::kCorrupt, "{}: {} says that tensor {} is in {}, but it is not there", dir.string(),
           kIndexFileName, tensor, file);
}

void TensorDir::open(const fs::path& path) {
  files_.push_back(std::make_unique<SafetensorsFile>(path));
  for (const auto& tensor : files_.back()->tensors()) items_.push_back({&tensor, files_.back().get()});
}

}  // namespace temper::checkpoint

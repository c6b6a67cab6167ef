// All tensors of a model directory: model.safetensors, or the shards that model.safetensors.index.json lists:
//   {"metadata": {"total_size": bytes}, "weight_map": {tensor name: file name}}
#pragma once

#include <filesystem>
#include <vector>

#include "checkpoint/safetensors.h"

namespace temper::checkpoint {

inline constexpr std::string_view kSingleFileName = "model.safetensors";
inline constexpr std::string_view kIndexFileName = "model.safetensors.index.json";

class TensorDir {
 public:
  // Maps every file; reads no data. model.safetensors wins if both are there, as in transformers. Refuses an index
  // whose file names are not plain names in dir (NAME.safetensors), a listed tensor that its file lacks, a tensor in
  // two files, and links that leave dir (path_inside).
  explicit TensorDir(const std::filesystem::path& dir);

  // Whether dir has weights at all.
  static bool exists(const std::filesystem::path& dir);

  struct Item {
    const StoredTensor* tensor;
    const SafetensorsFile* file;
  };
  const std::vector<Item>& items() const { return items_; }  // file by file, in the order of their data

 private:
  void open(const std::filesystem::path& path);

  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::vector<Item> items_;
};

}  // namespace temper::checkpoint

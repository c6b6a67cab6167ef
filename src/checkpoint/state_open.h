// A run state that has been read and checked.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/files.h"
#include "checkpoint/state_manifest.h"

namespace temper::checkpoint {

// manifest.json of a state's directory, checked for itself. Throws as parse_manifest, kNotFound, kIo.
StateManifest read_manifest(const std::filesystem::path& state_directory, Files& files);

class OpenedState {
 public:
  // Reads every byte in the directory and checks it against the manifest, in a buffer of one mebibyte.
  OpenedState(const std::filesystem::path& directory, Files& files);

  int64_t step() const { return manifest_.step; }
  const nlohmann::ordered_json& facts() const { return manifest_.facts; }
  std::optional<double> score() const { return manifest_.score; }
  const std::string& hash() const { return manifest_.hash; }  // 32 hexadecimal digits, stands for the whole state
  int64_t num_bytes() const { return manifest_.file_bytes; }
  const std::vector<ManifestTensor>& tensors() const { return manifest_.tensors; }
  const ManifestTensor* find(std::string_view name) const;  // nullptr if there is none

  // Copies a tensor of tensors() to host memory of num_bytes. Throws kIo, and kCorrupt if the disk now gives other
  // bytes than when the state was opened; then `to` holds rubbish.
  void read(const ManifestTensor& tensor, void* to) const;

 private:
  std::filesystem::path path_;  // of the file of tensors
  StateManifest manifest_;
  std::unordered_map<std::string_view, size_t> by_name_;
  std::unique_ptr<InputFile> file_;
};

}  // namespace temper::checkpoint

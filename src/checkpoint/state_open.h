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

// Processes that open a state together: each checks its share of the bytes.
struct Readers {
  int64_t rank = 0, size = 1;
};

class OpenedState {
 public:
  // Reads every byte in the directory, or a reader's share of them, and checks it against the manifest, in a buffer of
  // one mebibyte.
  OpenedState(std::filesystem::path directory, Files& files, Readers readers = {});

  int64_t step() const { return manifest_.step; }
  const nlohmann::ordered_json& facts() const { return manifest_.facts; }
  std::optional<double> score() const { return manifest_.score; }
  const std::string& hash() const { return manifest_.hash; }  // 32 hexadecimal digits, stands for the whole state
  int64_t num_bytes() const { return manifest_.num_bytes(); }
  const std::vector<StateFile>& files() const { return manifest_.files; }
  const std::vector<ManifestTensor>& tensors() const { return manifest_.tensors; }
  const ManifestTensor* find(std::string_view name) const;  // nullptr if there is none

  // Copies elements [begin, end) of a tensor of tensors() to host memory. Throws kIo, and kCorrupt if the disk now
  // gives other bytes of a piece that is read whole than the manifest says; then `to` holds rubbish.
  void read(const ManifestTensor& tensor, int64_t begin, int64_t end, void* to) const;

 private:
  std::string path_of(const StateFile& file) const { return (directory_ / file.name).string(); }
  const InputFile& open(int64_t file) const;
  void check_file(int64_t file) const;
  void check_piece(const ManifestTensor& tensor, const StatePiece& piece) const;

  std::filesystem::path directory_;
  Files& files_;
  StateManifest manifest_;
  std::unordered_map<std::string_view, size_t> by_name_;
  // The file that was read last.
  mutable std::unique_ptr<InputFile> file_;
  mutable int64_t file_number_ = -1;
};

}  // namespace temper::checkpoint

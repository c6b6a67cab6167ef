// The directory that a model is written into: files appear in a folder beside their places and are moved up at the end.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace temper::checkpoint {

// Whether a file of this name holds weights of a model, or their index.
bool is_weight_file(const std::string& name);

// Makes the folder in which dir/name is to be written, if it is not there. Refuses (kInvalidArgument) a link in its
// place. name is a plain name or FOLDER/NAME.
void make_folder_in(const std::filesystem::path& dir, const std::filesystem::path& name);

class SaveDir {
 public:
  // Creates dir if it is not there, and dir/.saving; refuses as check_save_dir does. What an interrupted save left is
  // removed.
  SaveDir(const std::filesystem::path& dir, bool overwrite);
  SaveDir(const SaveDir&) = delete;
  SaveDir& operator=(const SaveDir&) = delete;
  ~SaveDir();  // without commit(): removes dir/.saving

  // Where to write the file of this name, which may lie in a folder; it will be moved to dir/name.
  std::filesystem::path stage(const std::string& name);

  // Removes the weight files of an older model that have no successor, moves the staged files up and writes config.json
  // last.
  void commit(const std::string& config_json);

 private:
  std::filesystem::path dir_, staging_;
  std::vector<std::string> names_;
};

}  // namespace temper::checkpoint

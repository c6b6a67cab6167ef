// The directory of a run: what lies where, and whether a run may begin, go on, or begin anew there.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace temper::train {

// What to do where a run is already.
enum class Start : uint8_t {
  kResume,      // go on with it
  kFresh,       // refuse
  kFreshForce,  // remove it, and begin anew
  kReplay,      // only read it
};

class RunDir {
 public:
  // Creates the directory and locks it as long as this lives. Refuses (kInvalidArgument), without touching anything:
  // one that holds a run, if start is kFresh; one that is not empty and holds no run, unless start is kFreshForce,
  // which leaves files alone that no run makes; one in which another process is training. With kReplay nothing
  // is created or locked. Directories that it has made and that are empty at the end of its life go with it: a run that
  // is refused before it begins leaves nothing behind.
  RunDir(std::filesystem::path path, Start start);
  RunDir(const RunDir&) = delete;
  RunDir& operator=(const RunDir&) = delete;
  ~RunDir();

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path states() const { return path_ / "state"; }
  std::filesystem::path description() const { return path_ / "run.json"; }
  std::filesystem::path model() const { return path_ / "model"; }
  std::filesystem::path model_at(int64_t step) const { return path_ / ("step-" + std::to_string(step)); }
  // Of a rank that did not make the directory: why it cannot write into it. Empty: it can.
  std::string why_not_shared() const;
  // Whether the final model is there, whole.
  bool has_model() const;

 private:
  std::filesystem::path path_;
  std::vector<std::filesystem::path> made_;  // inner ones first
  int lock_ = -1;                            // descriptor of the directory; the system drops the lock with the process
};

}  // namespace temper::train

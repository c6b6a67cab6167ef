// The run states of a run: a directory in which each state appears whole or not at all and the last good one survives
// any kill, crash of the machine, or full disk. The format of one state: checkpoint/state_manifest.h.
//
//   step-<8 digits>        a state
//   .writing-<8 digits>    one that is being written: tensors, fsync, manifest, fsync, directory fsync, then renamed
//   .replaced-<8 digits>   the older state of the same step, until the newer one has its name for good
//   .removing-<8 digits>   one that is being removed
// What a killed writer left is put right by the next write; until then readers pass over it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/files.h"
#include "checkpoint/state_open.h"
#include "checkpoint/state_write.h"
#include "tensor/view.h"

namespace temper::checkpoint {

struct StateContents {
  int64_t step = 0;
  nlohmann::ordered_json facts = nlohmann::ordered_json::object();  // everything that is not a tensor
  std::vector<StateTensor> tensors;                                 // no element twice
  std::optional<double> score;                                      // held-out loss, for keep_best
};

inline constexpr const char* kPinName = "pinned";

// Which states stay: the newest keep_last (at least 1), every one whose step is a multiple of keep_every, the keep_best
// with the lowest score; 0 means none by that rule. A state that holds a file kPinName always stays.
struct Retention {
  int64_t keep_last = 2, keep_every = 0, keep_best = 0;
};

struct DamagedState {
  int64_t step = 0;
  std::string reason;  // names file and tensor
};

// One process writes; a thread at a time uses a StateLog. Others may read the directory meanwhile, each with a StateLog
// of its own. Failures of the disk are Error kIo.
class StateLog {
 public:
  StateLog(std::filesystem::path directory, Retention retention, Files& files = system_files());

  // Writes a state and returns its hash; on return it survives a crash. On an Error what was there before is unharmed
  // and the space that the attempt took is free again. A state of the same step is replaced, its pin kept.
  std::string write(const StateContents& contents);

  // The same by many processes that see one directory. The first one prepares; all write their parts, each under its
  // rank; then the first one publishes the parts of all, or, where one could not write, discards them. The step is that
  // of the contents; facts and score are those that the first one publishes.
  void prepare(int64_t step);
  StatePart write_part(const StateContents& contents, int64_t rank);
  std::string publish(const StateContents& contents, const std::vector<StatePart>& parts);
  void discard() noexcept;

  // Steps of the states in the directory, damaged ones included, ascending; none if there is no directory.
  std::vector<int64_t> steps() const;

  // Reads every byte of a state, or a reader's share of them, from the disk where the system allows it, and checks it.
  // Throws kNotFound, kCorrupt (naming file and tensor), kUnsupported, kIo.
  OpenedState open(int64_t step, Readers readers = {});
  // All readers together have found nothing wrong with a state.
  void verified(int64_t step) { is_good_[step] = true; }

  // The newest state of at most that step which verifies. Those that were passed over are added to damaged; where
  // nothing is returned and damaged is not empty, a run must not begin anew over them.
  std::optional<OpenedState> open_newest(int64_t at_most_step, std::vector<DamagedState>& damaged);

  // Removes what Retention does not keep and returns the removed steps. Only states that verify count as kept; what
  // this process wrote or opened is taken as verified, others are read. Nothing as new as the newest good state goes.
  std::vector<int64_t> retain();

  // The state stays whatever Retention says.
  void pin(int64_t step);
  bool is_pinned(int64_t step) const;

 private:
  using Path = std::filesystem::path;
  Path path_of(int64_t step) const;
  void recover();
  void name_staged(int64_t step);
  void remove(int64_t step);
  bool is_good(int64_t step);
  std::set<int64_t> kept(const std::vector<int64_t>& newest_first);
  void keep_by_score(const std::vector<int64_t>& steps, std::set<int64_t>& kept);

  Path directory_;
  Retention retention_;
  Files& files_;
  std::map<int64_t, bool> is_good_;  // of the states that this process has written or read
  bool has_durable_name_ = false;    // the directory itself
};

}  // namespace temper::checkpoint

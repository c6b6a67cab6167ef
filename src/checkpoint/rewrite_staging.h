// The folder in which a conversion grows, and which a later run takes up.
//
//   DST/.converting/plan             what is converted and how, as text; a run takes up only a folder with its own plan
//   DST/.converting/<file>.part      a file that is being written
//   DST/.converting/<file>           a finished file; moved to DST/<file> at the end
//   DST/.converting/<file>.receipt   of a finished file of weights: its lines of the receipt
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace temper::checkpoint {

class RewriteStaging {
 public:
  // Takes up what an earlier run with this plan left, or begins anew. Refuses a destination that cannot be written, one
  // that holds other files (unless overwrite), and an unfinished conversion with another plan (unless overwrite, which
  // removes it).
  RewriteStaging(std::filesystem::path destination, const std::string& plan, bool overwrite);

  std::filesystem::path part(const std::string& name) const;
  // The part is complete and synced.
  void finish(const std::string& name, const std::string& receipt);
  void write(const std::string& name, const std::string& contents);  // a small file, finished at once

  // Where a file lies that an earlier run finished, and its lines of the receipt.
  struct Finished {
    std::filesystem::path path;
    std::string receipt;
  };
  std::optional<Finished> find_finished(const std::string& name) const;
  std::string receipt(const std::string& name) const;  // of a finished file

  // Moves the files up, in place of the weights and the config.json of an older model, and writes config.json last.
  void commit(const std::vector<std::string>& names, const std::string& config_json);

 private:
  std::filesystem::path destination_, folder_;
};

}  // namespace temper::checkpoint

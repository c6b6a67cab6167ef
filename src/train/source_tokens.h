// How many tokens of which data file a run has seen: part of the run state, so that a resumed run goes on counting.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "data/loader.h"

namespace temper::train {

class SourceTokens {
 public:
  struct Count {
    int64_t tokens = 0, trained_tokens = 0;  // trained: positions that have a target
    bool operator==(const Count&) const = default;
  };

  SourceTokens() = default;
  // A file is called by its name, and by as many directories before it as tell it from the others.
  explicit SourceTokens(std::span<const std::filesystem::path> files);

  // Counts the documents of a step. Their files (Example::origin, "file:line") must be among those of the constructor.
  void add(const data::LoaderStep& step);

  const std::map<std::string, Count>& counts() const { return counts_; }

  // {"<file>": {"tokens", "trained_tokens"}}
  nlohmann::ordered_json to_json() const;
  // Goes on from such an object. Refuses (kCorrupt) what is none, and (kInvalidArgument) files that are not this run's.
  void restore(const nlohmann::ordered_json& json);

 private:
  std::map<std::string, std::string, std::less<>> labels_;  // by path
  std::map<std::string, Count> counts_;                     // by label
};

}  // namespace temper::train

// Records that say the same, over any number of files.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/records.h"

namespace temper::data {

// 128 bits of XXH3 over normalised text: letters of ASCII in lower case, runs of blanks as one, none at the ends.
// Punctuation counts, for 2-3 is not 23. Roles, calls and declared tools count too.
struct RecordHashes {
  struct Hash {
    uint64_t high = 0, low = 0;
    bool operator==(const Hash&) const = default;
  };
  Hash whole;
  Hash prompt;              // all but the last message of the assistant
  bool has_prompt = false;  // plain text has none
};
RecordHashes hash_record(const Record& record, std::span<const Message> messages);

// Remembers about 80 bytes a record.
class DuplicateFinder {
 public:
  // Where an equal record was first seen, and where one with the same prompt and another answer; empty if nowhere.
  struct Seen {
    std::string duplicate_of, same_prompt_as;
  };
  Seen add(const RecordHashes& hashes, const std::string& file, int64_t line);

 private:
  struct Place {
    uint32_t file;
    int64_t line;
  };
  struct Mix {
    size_t operator()(const RecordHashes::Hash& hash) const { return hash.low; }
  };
  std::string describe(const Place& place) const;

  std::vector<std::string> files_;
  std::unordered_map<RecordHashes::Hash, Place, Mix> records_, prompts_;
};

}  // namespace temper::data

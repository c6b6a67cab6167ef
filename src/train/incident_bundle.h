// The bundle about a bad step: a directory incident-<8 digits> beside the run's metrics, whole or not there at all.
//
//   incident.json     what was found (to_json of Incident), with
//                       "state": {"step", "hash"} of the run state that a replay starts from, or null: the fresh start
//                       "action": what the run did about it;  "learning_rate"
//                       "sample_text": the sample concerned, decoded from its first position of the micro-batch
//                     and of many ranks
//                       "layout": that of the run, "dp 2, ep 2, zero 1"
//                       "ranks": a list for each micro-batch of the step: those that had it
//   run.json          {"configuration": every key with its value}
//   batch.jsonl       a line per micro-batch: {"tokens", "targets", "weights", "cu_seqlens", "samples": origins}
//   statistics.jsonl  a line per output of each op call of the checking pass, in order: {"instruction", "layer", "op",
//                     "operand", "tensor", "num_elements", "num_nonfinite", "largest", "rms"}; of many ranks
//                     statistics-<5 digits>.jsonl, of each
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "base/files.h"
#include "parallel/ranks.h"
#include "train/incident.h"

namespace temper::train {

struct StateReference {
  int64_t step = 0;
  std::string hash;
};

struct BundleContents {
  const Incident& incident;
  const data::LoaderStep& data;
  double learning_rate;
  std::string action;
  std::optional<StateReference> state;
  nlohmann::ordered_json configuration;
  std::function<std::string(std::span<const int32_t>)> decode;
  const parallel::Ranks* ranks = nullptr;  // of many
};

// Returns the bundle's directory in run_dir; one of the same step is replaced. Of many ranks, which see one directory,
// each writes its statistics and the first one the rest; collective. Throws kIo, on all ranks.
std::filesystem::path write_bundle(const std::filesystem::path& run_dir, const BundleContents& contents,
                                   Files& files = system_files());

// What a replay needs of a bundle.
struct Bundle {
  int64_t step = 0;
  bool is_of_many = false;  // ranks
  bool is_transient = false;
  std::optional<StateReference> state;
  nlohmann::ordered_json configuration, first_bad;  // first_bad: null where none was found
  std::string text, batch;                          // batch: the contents of batch.jsonl
};

// Throws kNotFound, and kCorrupt naming the file.
Bundle read_bundle(const std::filesystem::path& dir);

// The contents of batch.jsonl.
std::string batch_lines(const data::LoaderStep& data);

}  // namespace temper::train

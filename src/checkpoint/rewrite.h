// From one model directory to another, tensor by tensor, without building the model: other names, other dtypes,
// quantised or not. What `temper convert` does.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/names.h"

namespace temper::checkpoint {

enum class RewriteDType : uint8_t {
  kBF16,      // FP8 and FP4 decoded; F32 for what transformers keeps in fp32 (is_kept_in_fp32)
  kF32,       // every number
  kOfficial,  // as the release stores it (release_dtype): experts FP4, projections FP8, scales F8_E8M0
  kSource,    // every tensor as it is stored
};

struct RewriteOptions {
  RewriteDType dtype = RewriteDType::kBF16;
  std::optional<NameStyle> style;  // nothing: kOfficial for kOfficial, kTransformers for the others
  std::string allow_missing;       // LoadOptions::allow_missing
  int64_t max_shard_bytes = 5'000'000'000;
  bool overwrite = false;  // replace the model in the destination, or an unfinished conversion with other options

  NameStyle names() const {
    return style.value_or(dtype == RewriteDType::kOfficial ? NameStyle::kOfficial : NameStyle::kTransformers);
  }
};

struct RewriteProgress {
  int64_t tensors_done = 0, num_tensors = 0;  // pieces, as in the receipt
  int64_t bytes_done = 0, num_bytes = 0;      // of the source
  int64_t bytes_resumed = 0;                  // of bytes_done: finished by an earlier run
  double seconds = 0;                         // since this run began to write
};

struct RewriteReport {
  int64_t num_tensors = 0, source_bytes = 0, destination_bytes = 0;  // of pieces; tensor data alone
  int64_t num_files = 0, num_resumed_files = 0;
  int64_t num_copied = 0, num_dequantised = 0, num_quantised = 0, num_cast = 0, num_dropped = 0;
  int64_t num_foreign = 0;           // mtp.* tensors of another drafter, copied as they are
  std::vector<std::string> missing;  // what allow_missing let pass
  double seconds = 0;
};

// Writes the model of source to destination: weights, config.json, generation_config.json, the tokenizer's files, the
// folder encoding/ and the receipt conversion.json (docs/formats.md).
//
// Names, shapes and dtypes are checked, and the free space of the disk, before anything is written. A number that is
// not finite, a NaN scale among them, stops the work when it is met and names the tensor. Threads work on tensors of
// one file at a time, each with buffers of a few megabytes.
//
// Files grow in destination/.converting and are moved up at the end, config.json last. A run that was stopped is taken
// up by the next with the same source, options and version: files that are finished there and equal their checksums
// stay. on_progress is called from one thread at a time; what it throws stops the work like any other error.
RewriteReport rewrite(const std::filesystem::path& source, const std::filesystem::path& destination,
                      const RewriteOptions& options,
                      const std::function<void(const RewriteProgress&)>& on_progress = {});

}  // namespace temper::checkpoint

// What a conversion does, decided from headers alone: every tensor of the files to be written, and the pieces that fill
// them.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/encoding.h"
#include "checkpoint/rewrite.h"
#include "checkpoint/weight_source.h"
#include "model/model.h"

namespace temper::checkpoint {

enum class RewriteAction : uint8_t { kCopied, kDequantised, kQuantised, kCast };
const char* rewrite_action_name(RewriteAction action);

// A tensor of the files to be written.
struct TargetTensor {
  TensorInfo info;
  int64_t offset = 0;  // in its file, bytes
};

// Rows of a stored tensor that become rows of a target tensor. Rows are all dimensions but the last, as in
// EncodedTensor; a piece is a whole tensor on one side at least.
struct RewritePiece {
  EncodedTensor source;
  const SafetensorsFile* file = nullptr;        // of source.weight
  const SafetensorsFile* scale_file = nullptr;  // of source.scale
  int64_t row_begin = 0, row_end = 0;           // of the source
  Encoding encoding = Encoding::kPlain;         // of the target
  size_t target = 0, target_scale = 0;          // indices; target_scale where encoding is not kPlain
  int64_t target_row = 0;                       // first row of the target
  RewriteAction action = RewriteAction::kCopied;
};

// A file to be written, complete but for its data.
struct TargetFile {
  std::string name;
  std::string header;                // length and JSON
  std::vector<size_t> targets;       // in the order of their data
  std::vector<RewritePiece> pieces;  // that fill them
  int64_t num_bytes = 0;
};

struct RewritePlan {
  std::vector<TargetTensor> targets;
  std::vector<TargetFile> files;
  std::vector<const WeightSource::Tensor*> dropped;  // copies of embedding and head beside mtp.0
  std::vector<std::string> missing;
  int64_t num_pieces = 0, num_foreign = 0;
  int64_t source_bytes = 0;  // that the pieces read
  int64_t target_bytes = 0;  // of the files, headers included
  bool is_quantised = false;
};

// Throws what WeightSource::refuse_misfits throws; kUnsupported where the wanted form does not exist: experts that are
// to be both stacked and quantised, FP4 of a matrix whose columns are not a multiple of 32, a stack with missing
// experts.
RewritePlan plan_rewrite(const WeightSource& source, const model::Config& config, const RewriteOptions& options);

}  // namespace temper::checkpoint

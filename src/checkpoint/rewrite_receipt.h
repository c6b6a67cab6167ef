// The receipt of a conversion, conversion.json: what became of every tensor, with checksums (docs/formats.md).
#pragma once

#include <string>
#include <vector>

#include "checkpoint/rewrite.h"
#include "checkpoint/rewrite_stream.h"

namespace temper::checkpoint {

inline constexpr const char* kReceiptName = "conversion.json";

// The entry of a piece or of a dropped tensor: one line of JSON, without the line's end.
std::string receipt_line(const RewritePlan& plan, const TargetFile& file, const RewritePiece& piece,
                         const PieceHashes& hashes);
std::string dropped_line(const StoredTensor& tensor, const SafetensorsFile& file, uint64_t hash);

// The target hashes of the lines of a finished file; fewer than lines where one is damaged.
std::vector<PieceHashes> read_target_hashes(const std::string& lines);

// The whole receipt; lines: those of all tensors, each with its line's end.
std::string make_receipt(const std::filesystem::path& source, const RewriteOptions& options,
                         const RewriteReport& report, const std::string& lines);

// What a conversion is: source files with sizes and times, options, version. Equal plans give equal bytes.
std::string plan_text(const std::filesystem::path& source, const RewriteOptions& options, const RewritePlan& plan);

}  // namespace temper::checkpoint

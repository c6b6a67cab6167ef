// A model as a Hugging Face directory: config.json, generation_config.json, model.safetensors or shards with an index,
// and the tokenizer's files. What transformers writes we read; what we write transformers reads with equal logits.
#pragma once

#include <filesystem>
#include <optional>
#include <span>

#include "checkpoint/names.h"
#include "checkpoint/weight_source.h"
#include "layers/ctx.h"
#include "layers/parameter.h"
#include "model/config.h"

namespace temper::checkpoint {

// Reads and validates dir/config.json.
model::Config load_config(const std::filesystem::path& dir);

// Fills the parameters of a whole model, or of a rank's stage of it (then tensors that no rank knows are passed over),
// from a directory, as WeightSource::fit and load do. Plain, FP8 and FP4 tensors
// in any mixture, experts stacked or one by one, names of any style.
//
// Everything but the values is checked before anything is written: one Error names each tensor that is missing,
// unknown, given twice, or of the wrong shape, dtype or encoding, and table entries that are no expert.
LoadReport load_weights(const std::filesystem::path& dir, layers::Ctx& ctx,
                        std::span<layers::Parameter* const> parameters, const LoadOptions& options = {});

enum class SaveDType : uint8_t {
  kSource,  // each tensor in the format in which source_dir stores it, FP8 and FP4 among them; f32 where source_dir has
            // no weights
  kF32,
  kBF16,      // except the tensors that transformers keeps in fp32 (is_kept_in_fp32)
  kOfficial,  // FP8 and FP4. Where source_dir has quantised tensors: kSource. Otherwise as the release stores them
              // (release_dtype): experts FP4, projections FP8, scales ue8m0, under official names
};

struct SaveOptions {
  SaveDType dtype = SaveDType::kSource;
  std::optional<NameStyle> style = {};    // nothing: the names of source_dir, or kTransformers where it has none
  std::filesystem::path source_dir = {};  // where the model came from; may be empty. Its generation_config.json is
                                          // carried over, and so are its mtp.* tensors where the model has no MTP block
  std::filesystem::path tokenizer_dir = {};  // whose tokenizer files are copied; empty = source_dir
  int64_t max_shard_bytes = 5'000'000'000;   // a larger model is cut into shards; one tensor is never cut
  bool overwrite = false;                    // replace the model that dir holds
};

// Refuses a directory that cannot be written, or that is not empty unless overwrite; creates it if it is not there.
// Call it before the work whose result goes there.
void check_save_dir(const std::filesystem::path& dir, bool overwrite);

// Writes the directory from the masters (values where a parameter has none). A weight that is to be stored as
// source_dir stores it, and that decodes there to the values in memory, bit for bit, is copied with its scale: what was
// not trained stays equal byte for byte. Others are rounded to nearest even, or quantised as in encoding.h. config.json
// is config.source with its dtype, its quantisation and, where transformers needs them, its layer lists set. Files are
// written whole inside dir/.saving and then moved up, config.json last: a directory without config.json is not
// finished. Memory is bounded as in weight_writer.h.
//
// Of many ranks (ctx.groups.world) all call this, with the parameters that they have; the first one writes, and asks
// the others for the elements that it lacks, a few megabytes at a time. Whatever the layout, the bytes are those of one
// rank. Where the first rank fails, the others throw kPeer.
void save_weights(const std::filesystem::path& dir, const model::Config& config, layers::Ctx& ctx,
                  std::span<layers::Parameter* const> parameters, const SaveOptions& options);

}  // namespace temper::checkpoint

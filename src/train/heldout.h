// Loss of a model directory on files of examples.
#pragma once

#include <filesystem>
#include <vector>

#include "layers/ctx.h"
#include "train/evaluate.h"

namespace temper::train {

struct HeldoutOptions {
  std::filesystem::path model_dir;
  std::vector<std::filesystem::path> files;
  int64_t max_examples = 0;  // the first so many; 0: all
  layers::Precision precision = layers::Precision::kFp32;
};

// Reads, packs and runs all examples; longer ones than the model's max_position_embeddings are cut to it. Throws what
// the readers throw, and kInvalidArgument when no token is trained.
HeldoutResult heldout_loss(const HeldoutOptions& options);

}  // namespace temper::train

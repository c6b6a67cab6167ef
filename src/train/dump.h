// What a checkpoint computes on given tokens, written down for others to compare: logits, losses, gradients.
//
// Input: JSONL, {"input_ids": [...], "labels": [...]} a line. labels has the length of input_ids, -100 = no loss, and
// is input_ids if absent. As in transformers, labels[t] is compared with the prediction made at t - 1; labels[0] is not
// read. Every line is one document.
//
// Output: a safetensors file, all f32, i = 0.. counting the lines that are not blank:
//   logits.<i>  [T, V]
//   loss.<i>    []      mean over the line's labelled tokens; NaN when it has none
//   <name>      the gradient of (sum of all token losses) / (number of labelled tokens of all lines) by the parameter
//               of this name in transformers' state dict; parameters without a gradient are left out
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "layers/ctx.h"

namespace temper::train {

struct DumpOptions {
  std::filesystem::path model_dir, input, file;
  bool gradients = false;
  layers::Precision precision = layers::Precision::kFp32;
};

struct DumpReport {
  struct Line {
    int64_t number;  // in the file, from 1
    int64_t num_tokens, num_targets;
    double loss;
  };
  std::vector<Line> lines;
  double loss = 0;                            // mean over the labelled tokens of all lines
  std::vector<std::string> without_gradient;  // parameters left out of the dump, when gradients were asked for
};

// Reads all lines before the model is loaded. Throws, naming file and line: kCorrupt where a line is not JSON,
// kInvalidArgument where it lacks input_ids, where lengths differ, an id is outside the model's vocabulary or, with
// gradients, no line has a labelled token. The dump appears only when it is complete.
DumpReport dump(const DumpOptions& options);

}  // namespace temper::train

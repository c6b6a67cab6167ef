// temper verify: is a model directory what it says it is, and do we compute with it what its makers compute?
//
//   structure  names, shapes, dtypes, numbers (structure.h)
//   self       the fast path against float64, by layer and op (self.h)
//   against    another directory (against_dir.h), or logits from elsewhere (against_file.h)
//
// One layer is in memory at a time. What that takes is planned before a weight is read, printed, held against
// memory_bytes, and measured.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

#include "backend/registry.h"
#include "verify/findings.h"
#include "verify/logits.h"
#include "verify/structure.h"
#include "verify/tokens.h"

namespace temper::verify {

struct Options {
  std::filesystem::path dir;
  bool structure = true, self = true;
  std::filesystem::path against;                           // a directory, a safetensors file, or nothing
  TokenOptions tokens;                                     // of self and of a directory; a file brings its own
  layers::Precision precision = layers::Precision::kFp32;  // fp32 or bf16
  double max_error = 0;  // of a token's streams after a layer; 0: what self.h and against_dir.h say
  LogitGates logits;
  const backend::Backend* fast = nullptr;  // the backend under test; nullptr: the CPU's
  int64_t memory_bytes = 0;  // most that this process may take, mapped files aside; 0: as much as there is
};

struct Report {
  Findings findings;
  int64_t num_main_layers = 0;
  nlohmann::json json;  // what verify.json holds
};

// Prints tables as they are made. A gate that fails is a finding; an Error says why a check could not be carried out:
// kBudget where memory_bytes are too few, with what would be needed and how many tokens would fit.
Report run(const Options& options, const Print& print);

}  // namespace temper::verify

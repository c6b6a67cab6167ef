// temper verify: is a model directory what it says it is, and do we compute with it what its makers compute?
//
//   structure  names, shapes, dtypes, numbers (structure.h)
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

#include "layers/ctx.h"
#include "verify/findings.h"
#include "verify/structure.h"
#include "verify/tokens.h"

namespace temper::verify {

struct Options {
  std::filesystem::path dir;
  bool structure = true;
};

struct Report {
  Findings findings;
  int64_t num_main_layers = 0;
  nlohmann::json json;  // what verify.json holds
};

// Prints tables as they are made. Throws Error only where the check could not be carried out.
Report run(const Options& options, const Print& print);

}  // namespace temper::verify

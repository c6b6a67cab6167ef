// The --precision option of the commands that run a model.
#pragma once

#include <string>

#include "app/choice.h"
#include "layers/ctx.h"

namespace temper::app {

// fp32 is the default; value must outlive the parse.
inline void add_precision(CLI::App& command, layers::Precision& value, const std::string& note = {}) {
  add_choice<layers::Precision>(
      command, "--precision", value, "fp32 (default), bf16 or fp64" + (note.empty() ? "" : "; " + note),
      {{"fp32", layers::Precision::kFp32}, {"bf16", layers::Precision::kBf16}, {"fp64", layers::Precision::kFp64}});
}

}  // namespace temper::app

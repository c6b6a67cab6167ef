// The --precision option of the commands that run a model.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <string>

#include "layers/ctx.h"

namespace temper::app {

// fp32 is the default; value must outlive the parse.
inline void add_precision(CLI::App& command, layers::Precision& value, const std::string& note = {}) {
  static const std::map<std::string, layers::Precision> kWords = {
      {"fp32", layers::Precision::kFp32}, {"bf16", layers::Precision::kBf16}, {"fp64", layers::Precision::kFp64}};
  command.add_option("--precision", value, "fp32 (default), bf16 or fp64" + (note.empty() ? "" : "; " + note))
      ->transform(CLI::CheckedTransformer(kWords).description(""))
      ->type_name("fp32|bf16|fp64");
}

}  // namespace temper::app

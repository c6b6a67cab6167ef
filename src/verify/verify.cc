#include "verify/verify.h"

#include <fmt/format.h>

#include "checkpoint/model_dir.h"
#include "model/model.h"
#include "verify/weights.h"

namespace temper::verify {
namespace {

// The model of a config.json without memory: its parameters' names and shapes.
model::Model shapes_of(const model::Config& config) {
  model::ModelOptions options;
  options.max_tokens = 1;
  options.train = false;
  return {config, options};
}

}  // namespace

Report run(const Options& options, const Print& print) {
  const model::Config config = checkpoint::load_config(options.dir);
  const model::Model shapes = shapes_of(config);
  const Weights weights(options.dir, shapes.parameters());
  Report report;
  report.num_main_layers = config.num_hidden_layers;
  report.json["model"] = options.dir.string();
  if (options.structure) report.json["structure"] = check_structure(config, weights, report.findings, print);
  report.json["findings"] = report.findings.to_json();
  report.json["passed"] = report.findings.num_failed() == 0;
  return report;
}

}  // namespace temper::verify

// What a run file says of the model and of how it is run.
#pragma once

#include "model/config.h"
#include "model/model_options.h"
#include "parallel/mesh.h"
#include "train/run_config.h"

namespace temper::train {

// Of model.path, or model.config, which may be the file or the directory that holds it.
model::Config read_model_config(const RunConfig& config);

// Of one rank that has the whole model. mtp: with the prediction block.
model::ModelOptions model_options(const RunConfig& config, bool mtp);

parallel::Layout layout_of(const RunConfig& config);

}  // namespace temper::train

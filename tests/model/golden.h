// The golden model of the architecture page, section 14: a tiny V4 model with every layer kind whose parameters come
// from a hash, so that nothing has to be stored. Its published numbers are the expectations of golden_test.cc.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "model/config.h"
#include "rig.h"
#include "tensor/view.h"

namespace temper::model::golden {

struct Tensor {
  Shape shape;
  std::vector<double> values;  // row-major; expert ids too
};

// D 16, four streams, layers sliding, CSA (rate 4), HCA (rate 8), CSA; the first is hash-routed.
Config config();

// x_t = (7 t^2 + 3 t + 5) mod 32, t = 0..28.
std::vector<int32_t> tokens();

// Every parameter and buffer by its name in transformers (page 14.1 gives them in the official order).
const std::map<std::string, Tensor>& parameters();

// The golden model with its parameters set, for the 29 tokens. options: precision and capacity are set here.
std::unique_ptr<Rig> make_rig(layers::Precision precision, const backend::Backend& backend, ModelOptions options = {});

}  // namespace temper::model::golden

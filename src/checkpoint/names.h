// Tensor names in files and the parameters they fill.
//
// Parameters carry the module names of transformers ("model.layers.0.self_attn.q_a_proj.weight"). Files spell them in
// one of three ways (architecture page 10.2), and older exports mix in a few aliases; parse_tensor_name reads them all.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/view.h"

namespace temper::checkpoint {

// How tensors are named and cut in a file that we write.
enum class NameStyle : uint8_t {
  kTransformers,  // what save_pretrained writes: official names in layers under "model.", one tensor per expert matrix
  kModules,       // transformers' module names, experts stacked
  kOfficial,      // DeepSeek's release: no "model.", one tensor per expert matrix
};

// The rows of a parameter that a stored tensor holds.
enum class Part : uint8_t {
  kWhole,
  kGate,  // w1 of an expert: rows 0..F-1 of gate_up_proj[e]
  kUp,    // w3 of an expert: rows F..2F-1 of gate_up_proj[e]
  kDown,  // w2 of an expert: down_proj[e]
};

struct TensorName {
  std::string parameter;  // module name in transformers
  int64_t expert = -1;    // with every part but kWhole
  Part part = Part::kWhole;
};

// What a stored name stands for; nothing if it is no name of a V4 model. Whether the model has the layer and the expert
// is the caller's question.
std::optional<TensorName> parse_tensor_name(std::string_view stored);

// Tensors of the multi-token-prediction blocks ("mtp.0.*", also under "model.").
bool is_mtp_name(std::string_view stored);

// The scales of quantised weights ("*.scale", "*.weight_scale_inv"). Ask only about names that parse_tensor_name
// refuses: hyper-connections have a parameter called scale.
bool is_quantisation_scale(std::string_view stored);

// The tensors that hold a parameter in a file of the given style, in the order of the parameter's rows; shape is the
// parameter's.
struct StoredName {
  std::string stored;
  TensorName name;
};
std::vector<StoredName> stored_names(const std::string& parameter, const Shape& shape, NameStyle style);

// The part of a parameter's view (contiguous), or of its shape. The expert must exist.
View part_of(const View& parameter, const TensorName& name);

// Parameters that transformers keeps in fp32 in a bf16 model: norms, hyper-connections, sinks, position biases and
// correction biases.
bool is_kept_in_fp32(std::string_view parameter);

}  // namespace temper::checkpoint

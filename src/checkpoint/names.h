// Tensor names in files and the parameters they fill.
//
// Parameters carry the module names of transformers ("model.layers.0.self_attn.q_a_proj.weight"); the block for
// multi-token prediction, which transformers lacks, is "mtp.0." with the same names inside. Files spell them in one of
// three ways (architecture page 10.2), and older exports mix in a few aliases; parse_tensor_name reads them all.
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
  kModules,       // transformers' module names, experts stacked; mtp.* as in kOfficial
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

// Tensors under "mtp." (also under "model.").
bool is_mtp_name(std::string_view stored);

// A copy of the embedding or of the head among the tensors of mtp.0 ("mtp.0.emb.tok_emb.weight", "mtp.0.head.weight"):
// it fills no parameter and may be dropped.
bool is_mtp_copy(std::string_view stored);

// An mtp.* tensor that V4 does not have: mtp.1 and above, a markov head and the like, as in the "-0731" drafter. One of
// them makes every mtp.* tensor of its directory foreign, those with V4's names, too.
bool is_foreign_mtp_name(std::string_view stored);

// The stored name of the weight that a quantisation scale belongs to: "X.scale", "X.weight_scale" and
// "X.weight_scale_inv" give "X.weight", "X_scale_inv" gives "X". Nothing if there is no such weight in V4; the scales
// of hyper-connections are parameters, not scales.
std::optional<std::string> weight_of_scale(std::string_view stored);

// The name of the scale that we write beside a quantised weight: "X.weight" gives "X.scale". Every other name is
// refused by a CHECK: stacked experts are never quantised.
std::string scale_name(std::string_view stored_weight);

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

// How the released instruct checkpoints store a parameter (the last column of 10.2).
enum class ReleaseDType : uint8_t {
  kBF16,
  kF32,
  kI64,
  kFp8,  // F8_E4M3 with a scale for each 128 x 128 block
  kFp4,  // two e2m1 a byte with a scale for each 32 columns
};
ReleaseDType release_dtype(std::string_view parameter);

}  // namespace temper::checkpoint

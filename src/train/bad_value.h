// A value that should not be there, and where it stands: what an investigation looks for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/loader.h"

#include <nlohmann/json.hpp>

namespace temper::train {

// A token of a step, or the window of tokens that an entry was made of.
struct TokenPlace {
  int64_t micro_batch = 0;
  int64_t token = 0;       // position in the micro-batch
  int64_t num_tokens = 1;  // more than 1: a compressed entry's window
  int64_t document = 0;    // number in the micro-batch
  int64_t position = 0;    // of the token in its document
  int32_t token_id = 0;
  std::string sample;  // "file:line" of the document's example; empty where the data does not say
};

struct BadValue {
  int64_t rank = -1;  // of many: the one that had it; -1: there is one, or it stands in the data, which all have
  // What it is: "is not finite", "is 3.1e+09 times the root mean square of the others", ...
  std::string finding;
  std::string tensor;          // name in the Book; "loss weights" for those of the data
  std::vector<int64_t> index;  // of the element
  double value = 0;
  std::optional<TokenPlace> place;  // where the element belongs to a token

  // Of the op that made or read it; empty where the memory was bad before any op ran.
  std::string instruction;         // "backward of micro-batch 3"
  int64_t layer = -1;              // block; the prediction block is the last; -1: outside of blocks
  std::string op, operand;         // names in ops.def
  bool was_read = false;           // it stood in what the op reads, and no op before had made it
  int64_t num_outputs_before = 0;  // of ops, in the pass: when it was seen
  std::vector<std::string> reads;  // what the op read: "model.layers.0.mlp.down_proj (largest 0.31)"
};

// Of a position of a micro-batch of `data`.
TokenPlace token_place(const data::LoaderStep& data, int64_t micro_batch, int64_t token, int64_t num_tokens = 1);

// One sentence or two: tensor, element, value, layer, op, instruction; token, document and sample.
std::string describe(const BadValue& bad);

// Doubles that are not finite stand as "nan", "inf", "-inf": JSON has no such numbers.
nlohmann::ordered_json number_json(double value);
nlohmann::ordered_json to_json(const BadValue& bad);
// All but num_outputs_before. Of what to_json made.
BadValue bad_value_from(const nlohmann::ordered_json& json);

}  // namespace temper::train

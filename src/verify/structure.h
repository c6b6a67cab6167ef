// Is this directory what its config.json says: names, shapes, dtypes, scales, and numbers that a trained model can
// have.
//
// Gates (each names layer and tensor): a tensor that is missing, unknown, given twice, of the wrong shape or dtype; NaN
// and infinities, as numbers, codes or scales; a scale that is zero or NaN; a norm, router row or expert of zeros; two
// equal expert matrices in a layer; an entry of a hash table that is no expert. Odd but possible numbers are notes.
//
// Reads every stored byte once, a layer after the other, by chunks; memory does not grow with the model.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "verify/findings.h"
#include "verify/weights.h"

namespace temper::verify {

// Takes a table as it is made, a line or several at a time, each ending in a newline.
using Print = std::function<void(const std::string&)>;

// Returns the report for machines: layers, kinds of tensors, bytes and seconds.
nlohmann::json check_structure(const Weights& weights, Findings& findings, const Print& print);

// The layer of a parameter, MTP blocks after the main layers; kNoLayer for the rest.
int64_t layer_of(const std::string& parameter, int64_t num_main_layers);

}  // namespace temper::verify

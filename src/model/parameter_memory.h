// The memory of a model's parameters and of what trains them, whole or in the pieces that ranks share.
//
//            value           gradient        master, moments
//   zero 0   whole           whole           whole
//   zero 1   whole           whole           piece
//   zero 2   whole           piece *         piece
//   zero 3   piece *         piece *         piece
//   * of layers; whole ones exist for one unit at a time, in memory that all units use in turn; with overlap for two,
//     neighbours in their order. The embedding, the final norm, the last collapse and the head are as with zero 1.
// Tensors that are not trained are whole on every rank.
#pragma once

#include <string>
#include <vector>

#include "layers/parameter.h"
#include "model/model.h"

namespace temper::model {

// What the ranks of a stage do not all have whole: experts, and what tp cuts.
bool is_expert(const layers::Parameter& p);
bool is_slice(const layers::Parameter& p);

// Makes a gradient 0: one that only products write is left to the first product.
void clear_gradient(layers::Ctx& ctx, const layers::Parameter& p);

// Parameters that come and go together, by unit (WeightKeeper): the main layers, the prediction block if there is one,
// then the ends.
std::vector<layers::ParameterList> parameter_units(const layers::ParameterList& parameters, int64_t num_layers,
                                                   bool has_mtp);

// Where whole tensors of what comes and goes are, by unit: place 0, or with overlap place 0 and 1 in turn among the
// units of which this rank has something.
std::vector<int64_t> unit_places(const std::vector<layers::ParameterList>& units, bool overlap);

// Sets what every parameter's ranks share.
void share_parameters(const layers::ParameterList& parameters, const ModelOptions& options);

// Declares values, masters, gradients and moments. acc: dtype of the last three.
void declare_parameters(Book& book, const std::vector<layers::ParameterList>& units, const ModelOptions& options,
                        DType acc);

// After the memory is granted: every View in its shape.
void bind_parameters(const std::vector<layers::ParameterList>& units, DType acc);

}  // namespace temper::model

// The tensors of a run state: of every parameter its weight of record and, where it is trained, AdamW's moments.
//
//   NAME                 master weight; the value where a parameter has no master (frozen tensors, router biases,
//   tables) NAME:m, NAME:v       first and second moment
//
// Compute copies of the weights are not kept: they are rounded from the masters.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "checkpoint/state_log.h"
#include "layers/ctx.h"
#include "layers/parameter.h"
#include "model/model.h"
#include "tensor/book.h"

namespace temper::train {

class StateTensors {
 public:
  // parameters must have been declared, and must outlive this. staging: a second copy of all tensors is declared, into
  // which stage() copies; else the live memory is what is written, which must then be the host's.
  StateTensors(const layers::ParameterList& parameters, bool staging);
  void declare(Book& book);

  bool staging() const { return staging_; }

  // Copies everything to the staging memory, on a stream of its own. Meanwhile nobody may change weights or moments.
  void stage(const layers::Ctx& ctx) const;

  // What is to be written: the staged copy, or the live tensors. Valid while the Book's memory is.
  std::vector<checkpoint::StateTensor> contents() const;

  // Fills weights, moments and compute copies. Refuses (kCorrupt) a state whose tensors are not those of this model, by
  // name, dtype or shape, before anything is written.
  void load(layers::Ctx& ctx, model::Model& model, const checkpoint::OpenedState& state) const;

 private:
  struct Tensor {
    std::string name;
    const View* live;
    std::unique_ptr<View> staged;  // where the Book binds it
  };
  std::vector<Tensor> tensors_;
  bool staging_;
};

}  // namespace temper::train

// The tensors of a run state: of every parameter its weight of record and, where it is trained, AdamW's moments.
//
//   NAME                 master weight; the value where a parameter has no master (frozen tensors, router biases,
//                        tables)
//   NAME:m, NAME:v       first and second moment
//
// Compute copies of the weights are not kept: they are rounded from the masters. Of many ranks each writes the elements
// that it owns, and of those that several hold, the first of them; so a state does not tell which layout wrote it.
#pragma once

#include <functional>
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
  // parameters must have been declared, and must outlive this. staging: a second copy of what this rank writes is
  // declared, into which stage() copies; else the live memory is what is written, which must then be the host's.
  // is_written: whether this rank writes what it has of a parameter. Of many ranks one must write each element.
  StateTensors(const layers::ParameterList& parameters, bool staging,
               const std::function<bool(const layers::Parameter&)>& is_written);
  void declare(Book& book);

  bool staging() const { return staging_; }

  // Copies what this rank writes to the staging memory, on a stream of its own. Meanwhile nobody may change weights or
  // moments.
  void stage(const layers::Ctx& ctx) const;

  // What this rank is to write: the staged copy, or the live tensors. Valid while the Book's memory is.
  std::vector<checkpoint::StateTensor> contents() const;

  // Fills this rank's weights and moments from a state of any layout, reading no more than these, and then the compute
  // copies of all ranks. Refuses (kCorrupt) a state whose tensors are not those of this model, by name, dtype or shape,
  // before anything is written. Collective.
  void load(layers::Ctx& ctx, model::Model& model, const checkpoint::OpenedState& state) const;

 private:
  enum class Kind : uint8_t { kWeight, kFirstMoment, kSecondMoment };
  struct Tensor {
    std::string name;
    const layers::Parameter* parameter;
    Kind kind;
    bool is_written;               // by this rank
    std::unique_ptr<View> staged;  // where the Book binds it

    const View& live() const;
    int64_t size() const { return parameter->is_shared() ? parameter->num_owned() : parameter->shape.size(); }
  };
  void refuse_others(const layers::Ctx& ctx, const checkpoint::OpenedState& state) const;

  std::vector<Tensor> tensors_;
  bool staging_;
};

}  // namespace temper::train

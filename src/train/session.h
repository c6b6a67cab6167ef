// A model with its memory on a device: what training, verification, scoring and generation start from.
#pragma once

#include <memory>
#include <optional>

#include "backend/registry.h"
#include "comm/comm_queue.h"
#include "layers/ctx.h"
#include "model/model.h"
#include "optim/clip.h"
#include "optim/update_meter.h"
#include "parallel/ranks.h"
#include "tensor/book.h"
#include "train/state_tensors.h"

namespace temper::train {

// fp32 and bf16 run on the fast CPU backend, fp64 on the scalar reference.
const backend::Backend& backend_for(layers::Precision precision);

// Whether the run's state is saved, and whether memory is taken for a copy of it.
enum class StateMemory : uint8_t { kNone, kInPlace, kStaged };

class Session {
 public:
  // Declares everything, refuses (kOutOfMemory, with the Book's table) what does not fit into the device's free memory,
  // then allocates and fills the constant tables. Weights are undefined until they are loaded or initialised.
  // options.num_threads is set from the device. The backend must outlive the Session.
  // ranks: those that train the model together, each with a Session of its own and with the options.part that
  // ranks->place() gives; null: this one alone.
  Session(const backend::Backend& backend, model::Config config, model::ModelOptions options,
          StateMemory state = StateMemory::kNone, const parallel::Ranks* ranks = nullptr);
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session();

  layers::Ctx& ctx() { return ctx_; }
  model::Model& model() { return model_; }
  const optim::WholeModel& whole() const { return whole_; }
  optim::NormMeter& norm_meter() { return norm_meter_; }  // its memory is there only when options.train
  const optim::UpdateMeter& update_meter() const { return update_meter_; }  // the same
  const StateTensors& state_tensors() const { return *state_tensors_; }     // not with StateMemory::kNone
  const Book& book() const { return book_; }
  int64_t allocated_bytes() const { return arena_->allocated_bytes(); }
  // For how long this rank has not computed because of what travels beside computation.
  double overlap_wait_seconds() const { return comm_queue_ ? comm_queue_->wait_seconds() : 0; }

 private:
  layers::Ctx ctx_;
  model::Model model_;
  parallel::Weights weights_;
  optim::WholeModel whole_;
  optim::NormMeter norm_meter_;
  optim::UpdateMeter update_meter_;
  std::optional<StateTensors> state_tensors_;
  Book book_;
  std::unique_ptr<backend::Arena> arena_;
  std::optional<comm::CommQueue> comm_queue_;  // last: it works on the memory
};

}  // namespace temper::train

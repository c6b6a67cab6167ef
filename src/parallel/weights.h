// Weights and gradients of ranks that hold equal parameters: gathered before a layer runs, added up after its backward,
// given back after the update (ZeRO 0 to 3; model/parameter_memory.h says what memory each rank has).
//
//   Weights weights(model, groups);  model.set_weight_keeper(&weights);
//   model.zero_gradients(ctx, n);     // n micro-batches on this rank; model.forward, logprobs, backward for each
//   model.complete_gradients(ctx);    // every parameter's owned_grad() is the sum over micro-batches and ranks
//   ... update what this rank owns ...
//   model.weights_updated(ctx);       // every parameter's value is whole again
//
// With overlap (Ctx::beside) gathers and sums over ranks run beside computation, with the same bits: a unit's
// values are fetched while another one computes, and what became of its gradients is taken over when their memory, or
// the sum, is wanted.
//
// Sums. With zero 0 and 1 a rank adds its micro-batches in their order and then the ranks are added; with zero 2 and 3
// the ranks are added for each micro-batch. In exact mode the ranks are added first, then the micro-batches, both in
// balanced binary trees: with the m-th micro-batch that is dealt on rank m mod D as its (m / D)-th, that is one tree
// over the step's micro-batches for every D that is a power of two.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <vector>

#include "comm/comm.h"
#include "comm/comm_queue.h"
#include "model/model.h"

namespace temper::parallel {

// Ranks with equal parameters; null: this rank alone. With overlap, groups that nobody else uses.
struct EqualRanks {
  comm::Comm* dense = nullptr;    // the ranks of a stage
  comm::Comm* slices = nullptr;   // those of them with the same slices of what tp cuts
  comm::Comm* experts = nullptr;  // those with the same experts
  comm::Comm* of(const layers::Parameter& p) const;
  // The first and the last stage of a pipeline, where the prediction block of the last one reads the embedding, too.
  comm::Comm* embedding = nullptr;
};

class Weights : public model::WeightKeeper {
 public:
  // The model's options say how memory is shared (ModelPart); declares what exact mode needs. model, and the groups,
  // must outlive this.
  Weights(model::Model& model, EqualRanks ranks);
  // After Model::declare.
  void declare(Book& book);

  void begin_step(int64_t num_micro_batches) override;
  void end_step(layers::Ctx& ctx) override;
  void gather(layers::Ctx& ctx, int64_t unit) override;
  void get(layers::Ctx& ctx, int64_t unit) override;
  void release(int64_t unit) override;
  void begin_backward(layers::Ctx& ctx, int64_t unit, model::GradientKind kind) override;
  void end_backward(layers::Ctx& ctx, int64_t unit, model::GradientKind kind) override;
  void values_changed(layers::Ctx& ctx) override;

 private:
  using Kind = model::GradientKind;
  // Sums over ranks that are under way.
  struct Reduction {
    int64_t unit;
    Kind kind;
    int64_t micro_batch;
    backend::Event* done;
  };
  const layers::ParameterList& unit_list(int64_t unit) const;
  size_t place_of(int64_t unit) const { return static_cast<size_t>(place_U_[unit]); }
  static backend::Stream* stream(layers::Ctx& ctx) {
    return ctx.beside ? ctx.beside->after(ctx.device, ctx.stream) : ctx.stream;
  }
  static void wait(layers::Ctx& ctx, backend::Event* mark) { ctx.beside->wait(ctx.device, ctx.stream, mark); }
  void add_embeddings(layers::Ctx& ctx) const;
  bool is_summed(const layers::Parameter& p, Kind kind, bool is_last) const;
  void add_ranks(backend::Stream* stream, const layers::Parameter& p, int64_t unit) const;
  void add_mtp_embedding(layers::Ctx& ctx, int64_t unit, int64_t micro_batch);
  void take(layers::Ctx& ctx, const layers::Parameter& p, int64_t micro_batch);
  void take_exact(layers::Ctx& ctx, const layers::Parameter& p, std::vector<View>& levels, int64_t micro_batch) const;
  void finish(layers::Ctx& ctx, const Reduction& reduction);
  void finish_in_place_of(layers::Ctx& ctx, int64_t unit);
  View total(layers::Ctx& ctx, const std::vector<View>& levels) const;
  const layers::Parameter& embedding() const;

  model::Model& model_;
  EqualRanks ranks_;
  int64_t zero_ = 0, num_micro_batches_ = 0;
  bool exact_ = false;
  static constexpr int64_t kNobody = -2;
  std::vector<int64_t> place_U_;  // of whole values and gradients, by unit (model/parameter_memory.h)
  // Whose whole values are in a place (zero 3); they come, are used, and stay until another's are wanted.
  enum class Use : uint8_t { kFree, kComing, kInUse };
  struct Values {
    int64_t unit = kNobody;
    Use use = Use::kFree;
    backend::Event* arrival = nullptr;
  };
  std::array<Values, 2> values_;
  // Whose backward adds to the whole gradients of a place, and in how many kinds (zero 2, 3).
  struct Adding {
    int64_t unit = kNobody, num_kinds = 0;
  };
  std::array<Adding, 2> adding_;
  std::vector<Reduction> under_way_;  // in their order
  // Micro-batches whose gradients a unit has, by kind; the ends last.
  std::array<std::vector<int64_t>, 2> done_KU_;
  // Exact mode: of what this rank owns, sums of 1, 2, 4, ... micro-batches.
  std::map<const layers::Parameter*, std::vector<View>> trees_;
  // The same of what the prediction block adds to the embedding's gradient: in a pipeline, first and last stage form a
  // sum each, and so does a rank that is both.
  std::vector<View> mtp_embedding_;
};

}  // namespace temper::parallel

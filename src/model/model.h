// A whole DeepSeek-V4 model: forward and hand-written backward over packed micro-batches.
//
//   Book book;  model.declare(book);  Arena arena(device, book);  model.initialize(...) or load weights;
//   model.forward(ctx, batch);                      // keeps what backward needs
//   model.logprobs(ctx)                             // log p(target) where targets[t] >= 0
//   model.backward(ctx, dlogp)                      // accumulates parameter gradients from dLoss/dlogp
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "layers/ctx.h"
#include "layers/parameter.h"
#include "layers/token_layout.h"
#include "model/config.h"
#include "model/model_options.h"
#include "model/weight_keeper.h"
#include "tensor/book.h"

namespace temper::model {

// Per position of the micro-batch; 0 where targets is -1.
struct TokenResults {
  std::vector<double> logp_T;   // log p(target)
  std::vector<int32_t> best_T;  // most likely token
};

// Discrete choices on the host, to be recorded and to be given: of a rollout, or of older weights (anticipatory
// routing). Per layer, the prediction block last where the model has it; an empty vector, and a row whose first value
// is -1, is computed. Rows of the prediction block are its own (mtp_batch()).
struct Choices {
  struct Layer {
    std::vector<int32_t> expert_TK, selected_TA;
  };
  std::vector<Layer> layers;
};

// Sums over the micro-batches since zero_gradients(), per layer, the prediction block last; 0 where a layer has no such
// loss. A step's loss is the sum over layers, times the coefficient given to backward().
struct AuxiliaryLosses {
  std::vector<double> balance_L;  // sum_e F_e P_e of each micro-batch (page 6.3)
  std::vector<double> indexer_L;  // sum over tokens of KL(attention || indexer) (page 5.9)
};

// What a layer's experts did in forward passes since zero_gradients(), the whole step's micro-batches together; a
// rebuilt pass does not count. Layers routed by token id have the counts of the clamp
// alone.
struct MoeStatistics {
  std::vector<int32_t> load_E;  // tokens that chose each expert
  double entropy = 0;           // mean over tokens of -sum_e p ln p, p the normalised scores of all experts; nats
  double bias_range = 0;        // largest less smallest correction bias of the experts, as they are now
  // Elements that the clamp of SwiGLU cut, of num_elements in each branch: gate above the limit, linear branch above
  // and below it; the shared expert included.
  int64_t num_gate_high = 0, num_linear_high = 0, num_linear_low = 0, num_elements = 0;
};

// What backward starts from.
struct LossGradients {
  std::span<const double> dlogp_T;  // dLoss/dlogp by position of the micro-batch
  // dLoss/dlogp of the prediction block by row of mtp_batch(); empty: no such loss, or no rows.
  std::span<const double> mtp_dlogp_R = {};
  double balance = 0;  // coefficient of sum_e F_e P_e of this micro-batch, in every score layer
  double indexer = 0;  // coefficient of each token's KL, in every CSA layer; used unless frozen
};

class Model {
 public:
  // Throws kInvalidArgument: a pattern of `frozen` that names no parameter, mtp where config has no such block.
  Model(Config config, ModelOptions options);
  ~Model();

  // Declares every tensor of the run. Call once, before the arena is made; the Model must outlive the Book's grant.
  void declare(Book& book);

  // Fills the constant tables (rotary angles). Call once, after the arena is made.
  void prepare(layers::Ctx& ctx);

  // Random start as in transformers: normal(0, initializer_range) for matrices, ones for norms, zeros for sinks and
  // biases; the hash table gets K distinct experts per token. A value depends on seed, tensor name and element index
  // only.
  void initialize(layers::Ctx& ctx, uint64_t seed);

  // Units of parameters, as WeightKeeper counts them; the ends last.
  const std::vector<layers::ParameterList>& units() const;
  // Those of a main layer's site (SiteRange), wherever it is.
  layers::ParameterList site_parameters(int64_t site) const;
  // Who is asked for weights and told of gradients from now on; null: nobody.
  void set_weight_keeper(WeightKeeper* keeper);

  // Copies master into value for every trainable parameter (after loading masters).
  void refresh_values(layers::Ctx& ctx);
  // Begins a step of so many micro-batches: gradients, auxiliary losses and statistics become 0.
  void zero_gradients(layers::Ctx& ctx, int64_t num_micro_batches = 1);
  // After the last micro-batch: gradients (Parameter::owned_grad) and statistics are those of all ranks. Collective.
  void complete_gradients(layers::Ctx& ctx);
  // After the update of what this rank owns: values are whole again. Collective.
  void weights_updated(layers::Ctx& ctx);

  // Runs the model on a micro-batch of 0 to max_tokens tokens. Where experts are spread over ranks, all of them must
  // run together: one that has no data left runs an empty micro-batch. Ranks that cut documents among them
  // (options.part.cp_size) are all given the same micro-batch: each computes its rows, and all get the results of all
  // rows. Rows of `given` replace the router's experts and the indexer's entries; weights are still computed from the
  // current router. Throws kInvalidArgument where their number or a value does not fit.
  void forward(layers::Ctx& ctx, const layers::MicroBatch& batch, const Choices* given = nullptr);
  // The same in two parts, between which a later stage gets its input: begin() takes the micro-batch up,
  // input_streams() then has its shape. Several passes through chunks can be alive, each in a slot of its own. What
  // follows is about the selected slot and chunk.
  int64_t num_chunks() const;
  void select(int64_t slot, int64_t chunk = 0);
  void begin(layers::Ctx& ctx, const layers::MicroBatch& batch, const Choices* given = nullptr);
  void forward_layers(layers::Ctx& ctx);
  // Of the rows that this rank has, which may be none of a micro-batch that has some.
  View input_streams() const;     // act [T, M, D]: before the first layer of the chunk
  View output_streams() const;    // act [T, M, D]: after the last one
  View streams_gradient() const;  // acc [T, M, D]: before backward() that of the output, unless this is the last part;
                                  // after it that of the input
  bool is_first_part() const;
  bool is_last_part() const;    // with the head: its log-probabilities are there
  bool is_first_stage() const;  // one of the rank's chunks is the first part
  bool is_last_stage() const;
  // After forward: results at positions with targets >= 0, by chunks. dlogp_T: dLoss/dlogp where it is known before the
  // log-probabilities are; a chunk's gradients are then computed while its logits exist, and backward, which must be
  // given the same values, need not compute those again.
  TokenResults logprobs(layers::Ctx& ctx, std::span<const double> dlogp_T = {});
  // The same of the prediction block, by row of mtp_batch(), whose targets and weights are those of this micro-batch.
  TokenResults mtp_logprobs(layers::Ctx& ctx, std::span<const double> dlogp_R = {});
  const layers::MicroBatch& mtp_batch() const;
  // After logprobs (and mtp_logprobs). Accumulates into every trainable parameter's grad.
  void backward(layers::Ctx& ctx, const LossGradients& gradients);
  // The same in two passes, where options.part.weights_later: after the first the gradient of the input is there, and
  // all that is not the gradient of a matrix of a layer; the second, of the slot's micro-batch, adds those. Both take
  // the micro-batches in one order, which gives the bits of backward().
  void backward_inputs(layers::Ctx& ctx, const LossGradients& gradients);
  void backward_weights(layers::Ctx& ctx);

  // Since zero_gradients().
  AuxiliaryLosses auxiliary_losses(layers::Ctx& ctx) const;
  // By layer, the prediction block last. Only where options.train.
  std::vector<MoeStatistics> moe_statistics(layers::Ctx& ctx) const;
  // Where experts are spread over ranks: from now on expert i of a block (the prediction block is the last) stands at
  // place position_E[i] of all ranks' experts, whose weights are there already. Of use on ranks that run its experts.
  void place_experts(layers::Ctx& ctx, int64_t block, std::span<const int32_t> position_E);
  bool runs_experts(int64_t block) const;
  // Once a step: bias_e += speed * sign(mean load - load_e) in every score layer (page 6.3).
  void update_router_biases(layers::Ctx& ctx, double speed);
  // After forward: rows [begin, end) of this rank's logits [T, V], to the host; for verify and generate, by chunks.
  void logits(layers::Ctx& ctx, int64_t begin, int64_t end, std::vector<double>& logits_TV);
  // After mtp_logprobs: the same of the prediction block, by row of mtp_batch().
  void mtp_logits(layers::Ctx& ctx, int64_t begin, int64_t end, std::vector<double>& logits_RV);

  // In the order of transformers' state dict: embedding, layers, head collapse, norm, head.
  const std::vector<layers::Parameter*>& parameters() const { return parameters_; }
  const Config& config() const { return config_; }
  const ModelOptions& options() const { return options_; }

  // Model FLOPs of forward + backward of documents with this layout and num_targets trained positions (model/flops.cc).
  double train_flops(const layers::HostLayout& layout, int64_t num_targets) const;

  // The discrete choices of the last forward pass, on the host, of all rows of the micro-batch; selected_TA only of CSA
  // layers that had to choose. Collective over ranks that cut documents or heads among them.
  Choices choices(layers::Ctx& ctx) const;

  // Streams [T, M, D] before a layer of the chunk or after its last one; intact after forward unless recompute
  // is kFull or train is false. Where the chunk begins or ends within a layer, those between its two sites.
  View streams(int64_t layer) const;

  struct Impl;
  Impl& impl() { return *impl_; }  // for the decoder, which drives the layers itself

 private:
  void backward(layers::Ctx& ctx, const LossGradients& gradients, bool weights_later);
  void declare_saved(Book& book, size_t chunk);
  void drop_other_stages();

  Config config_;
  ModelOptions options_;
  std::vector<layers::Parameter*> parameters_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace temper::model

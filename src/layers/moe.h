// Mixture of experts (architecture page 6, 12.E, 12.F): one shared expert and E routed experts, K per token, dropless.
//
//   z = Wg x;  s = sqrt(softplus(z));  w_i = scaling * s_i / sum over the chosen K of s
//   score layers choose the K largest of s + bias; hash layers look the choice up by token id
//   MoE(x) = shared(x) + sum_i W2_i ( w_i * swiglu(W1_i x, W3_i x) )
//
// Which rows an expert gets, and how they come to it, is dispatch.h; what it does with them, experts.h.
#pragma once

#include <string>

#include "layers/dispatch.h"
#include "layers/experts.h"
#include "layers/linear.h"

namespace temper::layers {

struct MoeDims {
  int64_t D, F, E, K;  // hidden, expert width, experts, experts per token
  int64_t V = 0;       // vocabulary; rows of the hash table
  bool hash = false;
  double scaling, swiglu_limit;
  ExpertPart part = {};
};

class Moe {
 public:
  // Of the experts' rows R, those of the first round.
  struct Saved {
    View z_TE, weight_TK, weight_R1;  // acc
    Dispatch::Saved plan;
    View gu_RG, shared_gu_TG;  // act; G = 2F: gate, then up
    // Several ranks: the experts' input (act), so that backward need not exchange it again; what the clamp cut in
    // further rounds (i64), as swiglu_clamp_counts.
    View x_RD, clamped_3;
  };

  // Names: prefix + gate.weight, gate.e_score_correction_bias | gate.tid2eid, experts.gate_up_proj, experts.down_proj,
  // shared_experts.{gate,up,down}_proj.weight.
  Moe(const std::string& prefix, MoeDims dims, Dtypes dtypes);

  void collect(ParameterList& list);
  void declare_saved(Book& book, Saved& saved, int64_t max_tokens) const;
  void declare_scratch(Book& book, int64_t max_tokens, bool train);
  Saved first(const Saved& saved, int64_t T) const;

  // y = MoE(h). expert_TK (i32): the chosen experts, computed or read as the rule says. Forward and backward are
  // collective among the ranks that share the experts (Ctx::groups.ep), whose numbers of tokens T may differ and be 0.
  void forward(Ctx& ctx, View y_TD, View h_TD, View token_T, const Saved& saved, View expert_TK,
               const ChoiceRule& rule) const;
  // dh_TD (acc) is overwritten; parameters' gradients accumulate. Score layers add the gradient of
  // balance.coefficient * sum_e F_e P_e, the sequence balance loss (6.3) over the tokens of all ranks that share the
  // micro-batch (Ctx::groups.cp and tp), num_tokens together, and add this rank's part of the sum to balance.loss_1
  // (acc; untouched when the coefficient is 0).
  struct Balance {
    double coefficient = 0;
    View loss_1;
    int64_t num_tokens = 0;
  };
  void backward(Ctx& ctx, View dh_TD, View dy_TD, View h_TD, const Saved& saved, View expert_TK,
                const Balance& balance) const;

  // What a forward pass did, added up over micro-batches. Undefined views are not filled.
  struct Statistics {
    View load_E;     // i32: tokens that chose each expert
    View entropy_1;  // acc: sum over tokens of the entropy of the router's normalised scores, as the op router_entropy
    // i64: elements of the experts of this rank, whoever's token, and of the shared one that the clamp cut, as
    // swiglu_clamp_counts.
    View clamped_3;
  };
  // After forward, from what it saved.
  void add_statistics(Ctx& ctx, const Statistics& to, const Saved& saved, View expert_TK) const;
  // As Dispatch::place.
  void place_experts(Ctx& ctx, std::span<const int32_t> position_E) { dispatch_.place(ctx, position_E); }
  View bias_E() const { return bias_.value; }  // acc; undefined in hash layers

  // Balance without a loss (score layers; 6.3), once a step:  bias_e += speed * sign(mean load - load_e).
  void update_bias(Ctx& ctx, View load_E, double speed) const;

  const MoeDims& dims() const { return dims_; }

 private:
  // A round's rows in the tensors that hold them.
  struct RoundViews {
    View x_RD, y_RD, weight_R1, gu_RG;
  };
  RoundViews views(const Saved& saved, const ExpertRows& rows) const;
  template <class Work>
  void receive(Ctx& ctx, const RoundViews& v, View h_TD, const Saved& saved, const ExpertRows& rows,
               const Work& meanwhile) const;
  void shared_gate_up(Ctx& ctx, View h_TD, const Saved& saved) const;
  void shared_down(Ctx& ctx, View y_TD, const Saved& saved) const;
  void count_loads(Ctx& ctx, View expert_TK) const;
  void route(Ctx& ctx, View h_TD, View token_T, const Saved& saved, View expert_TK, const ChoiceRule& rule) const;
  template <class Work>
  void backward_down(Ctx& ctx, const RoundViews& v, View dy_TD, const ExpertRows& rows, const Work& meanwhile) const;
  void backward_gate_up_weight(Ctx& ctx, const RoundViews& v, View h_TD, const ExpertRows& rows) const;
  void backward_weights_later(Ctx& ctx, View dy_TD, View h_TD, const Saved& saved) const;
  void backward_shared(Ctx& ctx, View dh_TD, View dy_TD, View h_TD, const Saved& saved) const;
  void backward_experts(Ctx& ctx, View dh_TD, View dweight_TK, View dy_TD, View h_TD, const Saved& saved) const;

  MoeDims dims_;
  Dtypes dtypes_;
  Linear router_;
  Parameter bias_, tid2eid_;  // one of them, by dims.hash
  Experts experts_;
  Dispatch dispatch_;
  Linear shared_gate_, shared_up_, shared_down_;
  struct Scratch {
    View x_RD, y_RD, dx_RD;                   // act; x: on one rank; dx: in the memory of y unless that is kept
    View shared_a_TF, shared_y_TD;            // act
    View shared_da_TF, shared_dgu_TG, dz_TE;  // act
    View dweight_R1, dweight_TK;              // acc
    View load_E;                              // i32: of the micro-batch
  } scratch_;
};

}  // namespace temper::layers

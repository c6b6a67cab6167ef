// One layer of the model (architecture page 2): hyper-connection, norm, attention, hyper-connection, norm, experts.
//
//   u = hc(X);  X <- hc_post(X, attention(RMS(u)));   u = hc(X);  X <- hc_post(X, MoE(RMS(u)))
#pragma once

#include <string>

#include "layers/attention.h"
#include "layers/hyper_connection.h"
#include "layers/moe.h"
#include "model/config.h"
#include "model/model_options.h"

namespace temper::model {

struct BlockDims {
  layers::HyperDims hyper;
  layers::AttentionDims attention;
  layers::MoeDims moe;
  LayerSites here;  // what this rank declares and runs: both sites, one, or none
};

// Sizes and kind of a main layer; of the multi-token-prediction block when layer is num_hidden_layers (sliding window,
// routed by score). part: what of the model this rank has.
BlockDims block_dims(const Config& config, int64_t layer, const ModelPart& part = {});

class Block {
 public:
  // One of the two sites of a block: what its hyper-connection and its norm leave for backward.
  struct SiteSaved {
    layers::HyperConnection::Saved hyper;
    View u_TD, h_TD, y_TD;  // act: collapsed streams, normed, block output
    View rstd_T;            // acc
  };
  struct Saved {
    SiteSaved attention_site, moe_site;
    View x_mid_TMD;  // act: streams between the two sites, where both are here
    layers::Attention::Saved attention;
    layers::Moe::Saved moe;
  };
  // Discrete choices, kept apart from Saved: recompute reads them instead of choosing again.
  struct Choices {
    View selected_TA, expert_TK;  // i32; selected only in CSA layers
  };

  // prefix "model.layers.3."
  Block(const std::string& prefix, BlockDims dims, layers::Dtypes dtypes);

  // Those of these sites, wherever they are, in the order of the state dict.
  void collect(layers::ParameterList& list, LayerSites of = {});
  // What is declared, and what runs, is that of the sites here.
  void declare_saved(Book& book, int64_t max_tokens);
  void declare_choices(Book& book, int64_t max_tokens);
  void declare_scratch(Book& book, int64_t max_tokens, int64_t num_threads, bool train);

  // How a pass chooses: its experts and, in CSA layers, the entries that are attended to.
  struct Choosing {
    layers::ChoiceRule experts, entries;
    layers::EntryUse use = layers::EntryUse::kBest;
  };
  // x, xo and dx have the rows of this rank; layout those of all ranks of its tensor parallel group, and so have
  // max_tokens above.
  // xo = block(x), or the result of its only site. Its choices are computed or read. xo must not alias x.
  void forward(layers::Ctx& ctx, View xo_TMD, View x_TMD, const Choosing& choosing, const layers::DeviceLayout& layout,
               const layers::RotaryTable& rotary) const;
  // In place: dx_TMD (acc) holds dLoss/dxo on entry and dLoss/dx on return. use: as in forward.
  void backward(layers::Ctx& ctx, View dx_TMD, View x_TMD, layers::EntryUse use, const layers::Moe::Balance& balance,
                const layers::DeviceLayout& layout, const layers::RotaryTable& rotary) const;
  // After forward: the indexer's own loss and its gradient (Attention::backward_indexer). Nothing without an indexer.
  void backward_indexer(layers::Ctx& ctx, View loss_1, layers::EntryUse use, double coefficient,
                        const layers::DeviceLayout& layout, const layers::RotaryTable& rotary) const;

  // Of so many rows of the tensor parallel group: the experts of this rank's, the entries of all. Undefined where the
  // site is elsewhere.
  Choices choices(int64_t num_tokens) const;
  const LayerSites& here() const { return dims_.here; }

  // The parts, for the decoder.
  const layers::Attention& attention() const { return attention_; }
  const layers::Moe& moe() const { return moe_; }
  layers::Moe& moe() { return moe_; }
  const Saved& saved() const { return saved_; }
  void attention_input(layers::Ctx& ctx, View x_TMD) const;                   // fills the attention site up to h_TD
  void attention_output(layers::Ctx& ctx, View x_mid_TMD, View x_TMD) const;  // from y_TD
  void experts(layers::Ctx& ctx, View xo_TMD, View x_mid_TMD, View token_T, const layers::ChoiceRule& rule) const;

 private:
  const layers::TensorPart& tensor_part() const { return dims_.attention.part; }
  void declare_site(Book& book, SiteSaved& site, const layers::HyperConnection& hyper, const std::string& name,
                    int64_t max_tokens) const;
  static SiteSaved first(const SiteSaved& site, int64_t T);
  void backward_experts(layers::Ctx& ctx, View dx_TMD, View x_mid_TMD, const layers::Moe::Balance& balance) const;
  void backward_attention(layers::Ctx& ctx, View dx_TMD, View x_TMD, layers::EntryUse use,
                          const layers::DeviceLayout& layout, const layers::RotaryTable& rotary) const;

  std::string prefix_;
  BlockDims dims_;
  layers::Dtypes dtypes_;
  layers::HyperConnection attention_hyper_, moe_hyper_;
  layers::RmsNorm attention_norm_, moe_norm_;
  layers::Attention attention_;
  layers::Moe moe_;
  Saved saved_;
  Choices choices_;
  View moe_dy_TD_, attention_dy_TD_, dh_TD_;  // act, act, acc
};

}  // namespace temper::model

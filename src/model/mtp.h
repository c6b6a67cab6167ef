// Multi-token prediction (architecture page 7, 12.K): one more block, which predicts the token after the next.
//
//   e_t = RMS(Emb[x_{t+1}]; enorm)      hh_ti = RMS(X_t[i]; hnorm)        X: streams after the last main layer
//   Y_t[i] = Weproj e_t + Whproj hh_ti        Y <- block(Y)        y_t = RMS(collapse(Y_t); norm)
//
// and the shared head on y_t predicts x_{t+2}. A document of S tokens has S-1 rows; rows of all documents stand one
// after the other in a micro-batch of their own, so that windows, positions and the experts' loads see nothing else.
#pragma once

#include <iterator>
#include <span>
#include <vector>

#include "layers/embedding.h"
#include "layers/lm_head.h"
#include "model/block.h"

namespace temper::model {

// The rows of the prediction block for a micro-batch: tokens[r] = x_{t+1}, targets[r] = x_{t+2} where the main loss
// trains it, weights alike; rows_R[r] = t. Documents of one token have no row.
struct MtpBatch {
  layers::MicroBatch batch;
  std::vector<int32_t> rows_R;
};
MtpBatch make_mtp_batch(const layers::MicroBatch& batch);

class Mtp {
 public:
  Mtp(const Config& config, layers::Dtypes dtypes, const ModelPart& part = {});

  void collect(layers::ParameterList& list);
  void declare_saved(Book& book, int64_t max_tokens);
  void declare_scratch(Book& book, int64_t max_tokens, int64_t num_threads, bool train);

  // Begins a micro-batch, on the host: its rows. This rank has those of the main rows that it has; with tensor
  // parallelism its group has, and shares them anew.
  void begin(const layers::MicroBatch& batch, const layers::RowCut& main_rows);
  void begin(const layers::MicroBatch& batch) { begin(batch, layers::even_cut(std::ssize(batch.tokens), 0, 1)); }
  // forward since begin.
  bool has_run() const { return has_run_; }
  // x_TMD: streams after the last main layer. Afterwards y_RD is what the head reads. main_rotary: of sliding layers.
  // R, here and below: rows of this rank.
  void forward(layers::Ctx& ctx, View x_TMD, const layers::Embedding& embedding, const Block::Choosing& choosing,
               int64_t window, const layers::RotaryTable& main_rotary);
  const layers::MicroBatch& batch() const { return mtp_.batch; }  // of all ranks
  const layers::RowCut& cut() const { return cut_; }              // this rank's are those of its group
  View y_RD() const { return y_RD_.first(num_rows()); }

  // dy_RD (acc): gradient of y, destroyed. Adds to dx_TMD and accumulates the embedding's gradient and the
  // block's.
  void backward(layers::Ctx& ctx, View dx_TMD, const layers::Embedding& embedding, View dy_RD,
                const layers::Moe::Balance& balance, const layers::RotaryTable& main_rotary) const;
  Block& block() { return block_; }
  int64_t num_rows() const { return part_.end(cut_.num_rows()) - part_.begin(cut_.num_rows()); }

 private:
  // Rows of the tensor parallel group whose main row this rank has: where they go to, and where its own rows come from.
  struct Sharing {
    int64_t begin = 0, end = 0;  // among the group's
    std::vector<int64_t> send_rows_S, recv_rows_S;
  };
  Sharing sharing() const;
  std::span<const int32_t> tokens() const;

  int64_t M_, D_;
  layers::Dtypes dtypes_;
  layers::Linear e_proj_, h_proj_;
  layers::RmsNorm enorm_, hnorm_, norm_;
  Block block_;
  layers::HyperConnection head_hyper_;

  MtpBatch mtp_;
  layers::TensorPart part_;
  layers::RowCut cut_;
  std::vector<int32_t> main_rows_G_;  // of the group's rows G, counted from its first main row
  int64_t num_main_rows_ = 0;         // of the group
  bool has_run_ = false;
  layers::DeviceLayout layout_;
  View row_R_, token_row_X_;  // i32: own main row of a row; row of each of the R*M streams
  View e_RD_, en_RD_, x_RMD_, hn_RMD_, in_RMD_, out_RMD_, v_RD_, y_RD_;  // act
  View e_rstd_R_, x_rstd_X_, v_rstd_R_;                                  // acc; X = R * M
  layers::HyperConnection::Saved head_saved_;
  View ep_RD_, din_act_RMD_, de_act_RD_;   // scratch: act
  View dx_RMD_, dh_RMD_, de_RD_, den_RD_;  // scratch: acc
  View shared_x_RMD_, shared_dh_RMD_;      // scratch of several ranks: act, acc; of own main rows
};

}  // namespace temper::model

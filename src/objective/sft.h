// Supervised fine-tuning and continued pre-training: weighted negative log-likelihood of the targets.
//
//   L = -(1/Z) sum_t w_t log p_t        Z = sum_t w_t        g_t = -w_t / Z
// w_t is the loader's weight (loss mask times sample weight). With reduction kSample w_t is divided by the number of
// targets in its document, so that every document weighs the same. With dft, l_t = -sg(p_t) log p_t and g_t = -w_t p_t
// / Z. Source: post-training 2.2; dft: TRL's loss_type = "dft".
#pragma once

#include "objective/objective.h"

namespace temper::objective {

class Sft : public Objective {
 public:
  explicit Sft(ObjectiveOptions options) : options_(options) {}
  double count(const layers::MicroBatch& batch) const override;
  // True without dft.
  bool constant_weights(const layers::MicroBatch& batch, double z, std::span<double> dlogp_T) const override;
  Sums token_weights(const layers::MicroBatch& batch, std::span<const double> logp_T, std::span<const int32_t> best_T,
                     double z, std::span<double> dlogp_T) const override;

 private:
  // w_t of every position.
  void loss_weights(const layers::MicroBatch& batch, std::span<double> w_T) const;
  // What a target of the document [begin, end) is multiplied with: 1, or 1 / number of targets.
  double document_scale(const layers::MicroBatch& batch, int64_t begin, int64_t end) const;

  ObjectiveOptions options_;
};

}  // namespace temper::objective

// Which rank has which experts, dealt anew between steps by their measured loads (post-training 4.3).
//
// A layer's experts stand in some order at the places 0, 1, ..., E - 1 of the ranks that share them; rank r has places
// [r, r + 1) * E / ep. At the start, and wherever tensors leave the run, expert i is at place i. Dealing moves weights,
// masters and moments with their experts and changes nothing else: every row meets the same weights, every sum of a
// gradient, an output or a norm has the same terms in the same order.
//
// Loads are those of layers that route by score, as a moving average over steps; the layers that route by token id keep
// their order.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "train/session.h"

namespace temper::train {

// Experts by place: the heaviest first to the rank with the least load that has a place left, equal ones by number; a
// rank's experts in ascending order. num_ranks divides their number.
std::vector<int32_t> deal_experts(std::span<const double> load_E, int64_t num_ranks);

// The busiest rank's load over the mean, less 1; 0 without loads.
double placement_imbalance(std::span<const double> load_E, std::span<const int32_t> expert_at_E, int64_t num_ranks);

class ExpertPlacement {
 public:
  // ranks, of which several share the experts, and session must outlive it.
  ExpertPlacement(Session& session, const parallel::Ranks& ranks);

  // After every step: its loads, equal on all ranks.
  void count(std::span<const model::MoeStatistics> moe_L);
  // Of the last step's loads as the experts stand: mean over layers.
  double imbalance() const { return imbalance_; }

  // Deals the experts of the layers in which that makes the busiest rank notably less busy, by the averages.
  // Collective. Returns the imbalance before and after, of those averages, as mean over layers.
  struct Dealt {
    int64_t num_layers = 0;
    double before = 0, after = 0;
  };
  Dealt deal();

  // All experts at the places of their numbers, as states and models have them, and back. Collective.
  void put_in_order();
  void put_back();
  // Tensors are about to be filled anew, expert by number: the order is that of the numbers, and nothing moves.
  void forget();

 private:
  using Order = std::vector<int32_t>;  // expert at each place
  void move(const std::vector<Order>& to_L);
  void move_tensor(const layers::Parameter& p, View mine, const Order& from, const Order& to) const;
  void tell_model(int64_t block);

  Session& session_;
  const parallel::Ranks& ranks_;
  int64_t num_experts_, num_blocks_;
  std::vector<Order> order_L_, dealt_L_;  // as they stand; as they were dealt
  std::vector<std::vector<double>> average_LE_;
  double imbalance_ = 0;
};

}  // namespace temper::train

// Whether a step's loss and gradient norm are like those before it.
//
//   spike:  loss > EMA_128(loss) + loss_sigmas * sigma_128   or   grad_norm > grad_norm_factor * median_128(grad_norm)
//
// Source: post-training 1.4. EMA and sigma weigh a step by 1/n while n <= 128 have been seen and by 2/129 from then on,
// sigma is the root of the variance under the same weights; the median is of the last 128 norms. Anomalous steps do not
// enter, so one spike does not hide the next.
//
// Judged once 32 normal steps have entered: then sigma is known to 1/sqrt(2 * 31) = 13 %, so that "6 sigma" is
// between 5.2 and 6.8 true ones. sigma counts for at least 0.5 % of the mean: a run whose losses are all but equal has
// no spikes within 3 %. After 32 spikes in a row the run has moved to another level: the statistics begin anew.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace temper::train {

enum class Anomaly : uint8_t { kNone, kNonFinite, kLossSpike, kGradientSpike };
std::string_view anomaly_name(Anomaly anomaly);  // "none", "non-finite", "loss spike", "gradient spike"

struct Judgement {
  Anomaly anomaly = Anomaly::kNone;
  double value = 0, limit = 0, usual = 0;  // of a spike: what was measured, the limit, the mean or median
};

class SpikeDetector {
 public:
  static constexpr int64_t kWindow = 128, kNeeded = 32;

  SpikeDetector(double loss_sigmas, double grad_norm_factor)
      : loss_sigmas_(loss_sigmas), grad_norm_factor_(grad_norm_factor) {}

  // Judges a step before its update; a normal one enters the statistics.
  Judgement see(double loss, double grad_norm);

  int64_t num_spikes_in_row() const { return num_spikes_in_row_; }

  // The statistics, exactly. Limits are not part of them. Throws kCorrupt.
  nlohmann::ordered_json to_json() const;
  void from_json(const nlohmann::ordered_json& json);

 private:
  Judgement judge(double loss, double grad_norm) const;
  void enter(double loss, double grad_norm);

  double loss_sigmas_, grad_norm_factor_;
  int64_t num_seen_ = 0, num_spikes_in_row_ = 0;
  double mean_ = 0, variance_ = 0;
  std::vector<double> norms_;  // of the last normal steps, the oldest first
};

}  // namespace temper::train

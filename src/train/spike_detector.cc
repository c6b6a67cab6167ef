#include "train/spike_detector.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/json_numbers.h"

namespace temper::train {
namespace {

constexpr double kSmallestSigma = 0.005;  // of the mean

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

}  // namespace

std::string_view anomaly_name(Anomaly anomaly) {
  constexpr std::string_view kNames[] = {"none", "non-finite", "loss spike", "gradient spike"};
  return kNames[static_cast<int>(anomaly)];
}

Judgement SpikeDetector::see(double loss, double grad_norm) {
  const Judgement judgement = judge(loss, grad_norm);
  if (judgement.anomaly == Anomaly::kNonFinite) return judgement;
  if (judgement.anomaly != Anomaly::kNone && ++num_spikes_in_row_ < kNeeded) return judgement;
  if (judgement.anomaly != Anomaly::kNone) num_seen_ = 0, norms_.clear();
  num_spikes_in_row_ = 0;
  enter(loss, grad_norm);
  return judgement;
}

Judgement SpikeDetector::judge(double loss, double grad_norm) const {
  if (!std::isfinite(loss)) return {Anomaly::kNonFinite, loss};
  if (!std::isfinite(grad_norm)) return {Anomaly::kNonFinite, grad_norm};
  if (num_seen_ < kNeeded) return {};
  const double sigma = std::max(std::sqrt(variance_), kSmallestSigma * std::abs(mean_));
  const double most_loss = mean_ + loss_sigmas_ * sigma;
  if (loss > most_loss) return {Anomaly::kLossSpike, loss, most_loss, mean_};
  const double usual_norm = median(norms_), most_norm = grad_norm_factor_ * usual_norm;
  if (grad_norm > most_norm && usual_norm > 0) return {Anomaly::kGradientSpike, grad_norm, most_norm, usual_norm};
  return {};
}

void SpikeDetector::enter(double loss, double grad_norm) {
  ++num_seen_;
  const double weight = num_seen_ <= kWindow ? 1.0 / static_cast<double>(num_seen_) : 2.0 / (kWindow + 1);
  const double difference = num_seen_ == 1 ? 0 : loss - mean_;
  mean_ = num_seen_ == 1 ? loss : mean_ + weight * difference;
  variance_ = num_seen_ == 1 ? 0 : (1 - weight) * (variance_ + weight * difference * difference);
  norms_.push_back(grad_norm);
  if (std::ssize(norms_) > kWindow) norms_.erase(norms_.begin());
}

nlohmann::ordered_json SpikeDetector::to_json() const {
  return {{"num_seen", num_seen_},
          {"num_spikes_in_row", num_spikes_in_row_},
          {"loss_mean", mean_},
          {"loss_variance", variance_},
          {"grad_norms", norms_}};
}

void SpikeDetector::from_json(const nlohmann::ordered_json& json) {
  try {
    num_seen_ = whole_number(json.at("num_seen"));
    num_spikes_in_row_ = whole_number(json.at("num_spikes_in_row"));
    mean_ = json.at("loss_mean").get<double>();
    variance_ = json.at("loss_variance").get<double>();
    norms_ = json.at("grad_norms").get<std::vector<double>>();
  } catch (const nlohmann::json::exception& error) {
    fail(ErrorCode::kCorrupt, "the spike detector's state: {}", error.what());
  }
  const bool plausible =
      num_seen_ >= 0 && std::isfinite(mean_) && variance_ >= 0 && std::ssize(norms_) == std::min(num_seen_, kWindow);
  if (!plausible) fail(ErrorCode::kCorrupt, "the spike detector's state holds impossible numbers");
}

}  // namespace temper::train

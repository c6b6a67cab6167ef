// The structure check of the tensors of one layer (structure.h), tensor by tensor.
#pragma once

#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "model/config.h"
#include "verify/findings.h"
#include "verify/statistics.h"

namespace temper::verify {

class LayerStructure {
 public:
  // layer kNoLayer: the tensors of no layer. Both references must outlive this.
  LayerStructure(int64_t layer, const model::Config& config, Findings& findings);

  // Reads a tensor and judges it alone.
  Statistics add(const Weights::Piece& piece);
  // Judges what needs the whole layer: the experts among each other.
  void finish();

  int64_t layer() const { return layer_; }
  int64_t num_tensors() const { return num_tensors_; }
  int64_t num_bytes() const { return num_bytes_; }
  int64_t num_bad() const { return num_bad_; }
  const std::set<std::string>& encodings() const { return encodings_; }
  const std::vector<double>& expert_rms() const { return expert_rms_; }  // ascending, after finish
  double router_row_min() const { return router_row_min_; }
  double router_row_max() const { return router_row_max_; }
  double bias_min() const { return bias_min_; }  // NaN without a correction bias
  double bias_max() const { return bias_max_; }
  nlohmann::json to_json() const;

 private:
  Statistics add_numbers(const Weights::Piece& piece);
  void add_experts(const Weights::Piece& piece, Statistics& total);
  void check_scale(const Weights::Piece& piece);
  void check_router(const Weights::Piece& piece);
  Statistics check_hash_table(const Weights::Piece& piece);
  void check_vector(const Weights::Piece& piece, const Statistics& statistics);

  int64_t layer_;
  const model::Config& config_;
  Findings& findings_;
  int64_t num_tensors_ = 0, num_bytes_ = 0, num_bad_ = 0;
  std::set<std::string> encodings_;
  std::vector<Statistics> experts_;                        // by expert
  std::unordered_map<uint64_t, std::string> expert_hash_;  // of each expert matrix: where it was first seen
  int64_t num_equal_ = 0;                                  // expert matrices that were seen before
  std::string first_equal_;
  std::vector<double> expert_rms_;
  double router_row_min_ = std::numeric_limits<double>::quiet_NaN(), router_row_max_ = router_row_min_;
  double bias_min_ = router_row_min_, bias_max_ = router_row_min_;
};

// "BF16", "FP8", "FP4"
std::string encoding_name(const checkpoint::EncodedTensor& tensor);

}  // namespace temper::verify

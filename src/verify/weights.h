// The weights of a model directory and what they belong to: opened once, read a part at a time.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/weight_source.h"
#include "model/model.h"

namespace temper::verify {

class Weights {
 public:
  using Piece = checkpoint::WeightSource::Piece;

  // Reads config.json, opens the files and matches names, shapes and dtypes; reads no weight. The model has its MTP
  // block where config.json and the files have it.
  explicit Weights(const std::filesystem::path& dir);

  const std::filesystem::path& dir() const { return source_.dir(); }
  const model::Config& config() const { return shapes_.config(); }
  bool has_mtp() const { return shapes_.options().mtp; }
  checkpoint::MtpKind mtp_kind() const { return source_.mtp_kind(); }
  const layers::ParameterList& parameters() const { return shapes_.parameters(); }  // without memory

  const std::vector<Piece>& pieces() const { return fit_.pieces; }  // what fits, in the order of the files
  const std::vector<std::string>& misfits() const { return fit_.misfits; }
  int64_t num_skipped() const { return fit_.num_skipped; }
  void refuse_misfits() const { source_.refuse_misfits(fit_); }

  const layers::Parameter& parameter(const std::string& name) const;
  // The tensors that hold a parameter: one, or one for each part.
  std::vector<const checkpoint::WeightSource::Tensor*> tensors_of(const std::string& parameter) const {
    return source_.tensors_of(parameter);
  }

  // Fills parameters of these names and shapes.
  void load(layers::Ctx& ctx, const layers::ParameterList& parameters) const;
  // Fills to_RC with rows [begin, end) of a vocabulary matrix.
  void load_rows(layers::Ctx& ctx, const View& to_RC, const std::string& parameter, int64_t begin, int64_t end) const;

 private:
  checkpoint::WeightSource source_;
  model::Model shapes_;
  checkpoint::WeightSource::Fit fit_;
};

// Tells the system that a stored tensor has been read: its pages are no memory of this process any more.
void release(const checkpoint::EncodedTensor& tensor);

}  // namespace temper::verify

// Do we compute what another program computes? Logits from elsewhere against ours, fast path, sequence by sequence.
//
// The file is safetensors with, for i = 0..:
//   input_ids.<i>  I64 [T]         logits.<i>  F32, F16 or BF16 [T, V]; row t predicts token t + 1
// docs/verify.md says how transformers makes one. Other tensors are ignored.
#pragma once

#include <filesystem>

#include "layers/token_layout.h"
#include "verify/logits.h"
#include "verify/streamed_model.h"
#include "verify/structure.h"

namespace temper::verify {

class LogitFile {
 public:
  // Throws kCorrupt or kInvalidArgument naming file and tensor: no pair of tensors, other dtypes or shapes than above,
  // ids outside the vocabulary.
  LogitFile(const std::filesystem::path& path, const model::Config& config);

  const layers::MicroBatch& tokens() const { return tokens_; }  // the sequences as documents of one packed row
  // Columns [begin, begin + count) of all sequences, f32, to the host.
  void columns(int64_t begin, int64_t count, std::vector<float>& logits_TC) const;

 private:
  checkpoint::SafetensorsFile file_;
  layers::MicroBatch tokens_;
  std::vector<const checkpoint::StoredTensor*> logits_;
};

nlohmann::json check_against_file(const Weights& weights, const LogitFile& file, const backend::Backend& fast,
                                  layers::Precision precision, const LogitGates& gates, Findings& findings,
                                  const Print& print);

}  // namespace temper::verify

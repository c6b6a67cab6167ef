// The tensors of a model directory, matched with the parameters of the model of its config.json and read a part at a
// time: whole parameters of one layer, or rows of a vocabulary matrix. FP8 and FP4 are decoded on the way.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "checkpoint/encoding.h"
#include "checkpoint/names.h"
#include "checkpoint/tensor_dir.h"
#include "layers/ctx.h"
#include "layers/parameter.h"

namespace temper::verify {

// A stored tensor and the rows of a parameter that it holds.
struct Piece {
  checkpoint::EncodedTensor tensor;
  const layers::Parameter* parameter;
  checkpoint::TensorName name;
  bool is_readable = true;  // false: its dtype or its scale is wrong, so that it has no values

  const std::string& stored_name() const { return tensor.weight->name; }
};

// Why a directory does not fit its config.json.
struct Misfit {
  std::string tensor;   // stored name, or the parameter's where a tensor is missing
  std::string message;  // "missing; expected [3, 4]"
};

class Weights {
 public:
  // Opens the directory and matches names, shapes and dtypes; reads no weight. The parameters need no memory and must
  // outlive this.
  Weights(const std::filesystem::path& dir, std::span<layers::Parameter* const> parameters);

  const std::filesystem::path& dir() const { return dir_; }
  const std::vector<Piece>& pieces() const { return pieces_; }  // in the order of the files
  std::vector<const Piece*> pieces_of(const std::string& parameter) const;
  const std::vector<Misfit>& misfits() const { return misfits_; }
  int64_t num_bytes() const { return num_bytes_; }      // stored, of all pieces
  int64_t num_skipped() const { return num_skipped_; }  // tensors of MTP blocks that the model does not have

  // kCorrupt with every misfit (20 of them, then a count) if there is one.
  void refuse_misfits() const;

  // Fills a parameter's value.
  void load(layers::Ctx& ctx, const layers::Parameter& parameter) const;
  // Fills to [end - begin, columns] with rows of a parameter that one tensor holds.
  void load_rows(layers::Ctx& ctx, const View& to, const std::string& parameter, int64_t begin, int64_t end) const;

 private:
  void match(const checkpoint::StoredTensor& stored);
  void check_complete(const layers::Parameter& parameter);

  std::filesystem::path dir_;
  checkpoint::TensorDir tensors_;
  std::unordered_map<std::string, const layers::Parameter*> parameters_;
  std::unordered_map<std::string, const checkpoint::StoredTensor*> stored_;
  std::unordered_map<std::string, std::vector<size_t>> pieces_of_;  // by parameter
  std::vector<Piece> pieces_;
  std::vector<Misfit> misfits_;
  int64_t num_bytes_ = 0, num_skipped_ = 0;
};

// Tells the system that a stored tensor has been read, so that its pages do not count as memory of this process.
void release(const checkpoint::EncodedTensor& tensor);

}  // namespace temper::verify

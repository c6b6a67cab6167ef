// A directory of weights, opened once, from which parameters are filled: all of them, or a layer at a time.
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "checkpoint/encoding.h"
#include "checkpoint/names.h"
#include "checkpoint/tensor_dir.h"
#include "layers/ctx.h"
#include "layers/parameter.h"

namespace temper::checkpoint {

struct LoadOptions {
  // A regular expression (ECMAScript) that the whole name of a parameter, or the official name of a part of one, must
  // match to be allowed to be missing: it keeps the values that it has. Empty: nothing may be missing.
  std::string allow_missing;
};

struct LoadReport {
  int64_t num_tensors = 0, num_bytes = 0;  // read from the files; a quantised weight and its scale are one tensor
  int64_t num_quantised = 0;               // of these: FP8 and FP4
  int64_t num_skipped = 0;                 // mtp.* tensors that fill no parameter
  std::vector<std::string> missing;        // what allow_missing let pass: parameters, or official names of parts
};

// What a directory has under "mtp.": the block of V4 (architecture page 7), or tensors of something else, such as the
// three-layer drafter of the "-0731" releases.
enum class MtpKind : uint8_t { kNone, kV4, kOther };

class WeightSource {
 public:
  // A stored weight with its scale, if it has one.
  struct Tensor {
    EncodedTensor encoded;
    std::string problem;                          // why it has no values (dtype or scale are wrong); empty if it has
    std::optional<TensorName> name;               // nothing: no name of a V4 model
    const SafetensorsFile* file = nullptr;        // of the weight
    const SafetensorsFile* scale_file = nullptr;  // nullptr without a scale

    const std::string& stored_name() const { return encoded.weight->name; }
  };
  // A tensor and the parameter that it fills, or a part of it.
  struct Piece {
    const Tensor* tensor = nullptr;
    const layers::Parameter* parameter = nullptr;
  };
  // How the directory and a list of parameters belong together. Every misfit names its tensor.
  struct Fit {
    std::vector<Piece> pieces;         // whose shapes and dtypes are right
    std::vector<std::string> misfits;  // "missing: lm_head.weight [8, 4]"; unknown, given twice, wrong shape, ...
    std::vector<std::string> missing;  // as in LoadReport
    int64_t num_skipped = 0;
  };

  // Maps the files and pairs weights with scales by their names; reads no weight.
  explicit WeightSource(const std::filesystem::path& dir);

  const std::filesystem::path& dir() const { return dir_; }
  const std::vector<Tensor>& tensors() const { return tensors_; }  // in the order of the files
  // Those of one parameter: one, or one for each part.
  std::vector<const Tensor*> tensors_of(const std::string& parameter) const;
  MtpKind mtp_kind() const { return mtp_kind_; }

  // Compares names, shapes and dtypes of whole tensors, also where this rank has a part of them; parameters need no
  // memory. is_whole_model: tensors without a parameter are
  // misfits, except those under mtp. where the list has no MTP block. kInvalidArgument if allow_missing is no regular
  // expression; kUnsupported if the list has an MTP block and the directory one of another kind.
  Fit fit(std::span<layers::Parameter* const> parameters, bool is_whole_model, const LoadOptions& options = {}) const;

  // Throws kCorrupt with the misfits (20 of them, then a count) if there are any.
  void refuse_misfits(const Fit& fit) const;

  // Fills master (acc) and value of the parameters of fit.pieces, what this rank has of them, from plain, FP8 and FP4
  // tensors, decoded by all threads; narrowing rounds to nearest even. Reads no rows that it does not want, and holds a
  // few megabytes; the pages of what was read are given back.
  // Misfits are refused before anything is written, and so is an entry of a hash layer's table that is no expert; an
  // element that is not finite is refused when it is met.
  LoadReport load(layers::Ctx& ctx, const Fit& fit) const;

 private:
  void add(const StoredTensor& weight, const SafetensorsFile& file, const TensorDir::Item* scale);
  void find_mtp_kind();

  std::filesystem::path dir_;
  TensorDir files_;
  std::vector<Tensor> tensors_;
  std::vector<std::string> strays_;  // scales without a weight, or a second one of a weight
  std::unordered_map<std::string, std::vector<size_t>> by_parameter_;
  MtpKind mtp_kind_ = MtpKind::kNone;
  std::string mtp_example_;  // of kOther: a tensor that V4 does not have
};

}  // namespace temper::checkpoint

// A tiny directory in the official format, of random codes: the tensors of architecture page 10.2 in all their
// encodings, and the parameters that they fill.
#pragma once

#include <deque>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/encoding.h"
#include "checkpoint/files.h"

namespace temper::checkpoint {

struct OfficialStyle {
  bool fp8 = true, fp4 = true;  // false: BF16 instead
  FileDType scale_dtype = FileDType::kF8E8M0;
  std::string prefix = {};  // "model." in some re-exports
  std::string scale_suffix = "scale";
  bool mtp = false;  // a part of mtp.0, enough to be told
};

class OfficialDir {
 public:
  explicit OfficialDir(const OfficialStyle& style);

  // Writes model.safetensors and config.json.
  void write(const std::filesystem::path& dir) const;

  Held& tensor(const std::string& name);  // by its name without the prefix
  void remove(const std::string& name);
  std::deque<Held>& tensors() { return tensors_; }

  // What the parameters must hold: decoded one element at a time by the formulas of page 10.4, in double.
  const std::map<std::string, std::vector<double>>& values() const { return values_; }

 private:
  void plain(const std::string& name, const std::string& parameter, FileDType dtype, std::vector<int64_t> shape);
  void quantised(Encoding encoding, const std::string& name, const std::string& parameter, int64_t rows,
                 int64_t columns);
  uint32_t next();

  OfficialStyle style_;
  uint32_t state_ = 1;
  std::deque<Held> tensors_;
  std::map<std::string, std::vector<double>> values_;
};

// The parameters of OfficialDir.
class OfficialModel : public HandMade {
 public:
  OfficialModel(layers::Precision precision, bool mtp);
};

}  // namespace temper::checkpoint

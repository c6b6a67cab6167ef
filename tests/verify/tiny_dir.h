// Model directories for the tests of verify: stored tensors in memory, which a test spoils before they are written.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "model/config.h"

namespace temper::verify::test {

struct Tensor {
  checkpoint::TensorInfo info;
  std::vector<std::byte> bytes;

  template <class T>
  T* as() {
    return reinterpret_cast<T*>(bytes.data());
  }
};

// config.json and the tensors by stored name.
class TinyDir {
 public:
  // A model as it is released: official names, FP8 projections, FP4 experts; sliding, CSA and HCA layers, the first
  // routed by token id, and an MTP block. Weights are drawn at random.
  static TinyDir released();
  // A directory as it is: official names of transformers or its own.
  static TinyDir read(const std::filesystem::path& dir);

  Tensor& at(const std::string& stored) { return tensors_.at(stored); }
  std::map<std::string, Tensor>& tensors() { return tensors_; }
  void set_config(const std::string& text) { config_ = text; }
  const std::string& config() const { return config_; }

  // A directory of this name under the test's temporary directory, removed with this process's other ones by the
  // caller.
  void write(const std::filesystem::path& dir) const;

 private:
  std::string config_;
  std::map<std::string, Tensor> tensors_;
};

// tests/fixtures/v4/<name>
std::filesystem::path fixture(const std::string& name);

}  // namespace temper::verify::test

// Helpers of the checkpoint tests: a directory that goes away, files with chosen bytes, parameters made by hand.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "backend/registry.h"
#include "base/error.h"
#include "base/file.h"
#include "base/scratch_dir.h"
#include "checkpoint/safetensors.h"
#include "layers/ctx.h"
#include "layers/parameter.h"

namespace temper::checkpoint {

using test::ScratchDir;

void put(const std::filesystem::path& path, const std::string& bytes);

// A safetensors file of a JSON header and num_data_bytes zero bytes.
void put_safetensors(const std::filesystem::path& path, const std::string& header, int64_t num_data_bytes);

// A tensor with memory of its own, zero at first.
struct Held : StoredTensor {
  Held(const std::string& tensor_name, FileDType tensor_dtype, std::vector<int64_t> tensor_shape);
  Held(Held&&) = default;
  Held& operator=(Held&&) = default;

  uint8_t& at(size_t i) { return reinterpret_cast<uint8_t*>(bytes.data())[i]; }
  void set_f32(size_t i, float value) { std::memcpy(bytes.data() + i * sizeof value, &value, sizeof value); }

  std::vector<std::byte> bytes;
};

// Writes a safetensors file of these tensors.
void put_tensors(const std::filesystem::path& path, const std::deque<Held>& tensors);

// The message of the Error that body throws, with the name of its code in front; "no error" without one.
template <class Body>
std::string error_of(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    return std::string(error_code_name(error.code())) + ": " + error.what();
  }
  return "no error";
}

// Parameters with memory of their own, on the CPU.
class HandMade {
 public:
  explicit HandMade(layers::Precision precision);
  ~HandMade();
  HandMade(const HandMade&) = delete;
  HandMade& operator=(const HandMade&) = delete;

  // A matrix in act with a master in acc where they differ and it is trained; a vector in acc; a table in i64.
  layers::Parameter& matrix(const std::string& name, Shape shape, bool trainable = true);
  layers::Parameter& vector(const std::string& name, Shape shape);
  layers::Parameter& table(const std::string& name, Shape shape);

  // Numbers that differ by tensor and element, not exact in bf16; tables get experts 0 and 1.
  void fill(int seed);

  layers::Ctx& ctx() { return ctx_; }
  const std::vector<layers::Parameter*>& parameters() const { return list_; }

 private:
  layers::Parameter& add(const std::string& name, Shape shape, DType dtype);
  View memory(DType dtype, Shape shape);

  std::deque<layers::Parameter> parameters_;
  std::deque<std::vector<std::byte>> memory_;
  std::vector<layers::Parameter*> list_;
  layers::Ctx ctx_;
};

// Dtype, shape and bytes of every tensor of a model directory, by name.
std::map<std::string, std::string> contents(const std::filesystem::path& dir);

// The elements of a view as doubles.
std::vector<double> values_of(const View& view);

}  // namespace temper::checkpoint

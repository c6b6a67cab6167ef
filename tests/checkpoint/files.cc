#include "checkpoint/files.h"

#include <stdlib.h>

#include <algorithm>
#include <cstring>
#include <fstream>

#include "checkpoint/convert.h"
#include "checkpoint/tensor_dir.h"

namespace temper::checkpoint {

void put(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

void put_safetensors(const std::filesystem::path& path, const std::string& header, int64_t num_data_bytes) {
  const uint64_t length = header.size();
  std::string bytes(sizeof length, '\0');
  std::memcpy(bytes.data(), &length, sizeof length);
  put(path, bytes + header + std::string(static_cast<size_t>(num_data_bytes), '\0'));
}

Held::Held(const std::string& tensor_name, FileDType tensor_dtype, std::vector<int64_t> tensor_shape) {
  name = tensor_name, dtype = tensor_dtype, shape = std::move(tensor_shape);
  bytes.resize(static_cast<size_t>(num_bytes()));
  data = bytes.data();
}

void put_tensors(const std::filesystem::path& path, const std::deque<Held>& tensors) {
  std::vector<const Held*> order;
  for (const Held& tensor : tensors) order.push_back(&tensor);
  std::stable_sort(order.begin(), order.end(), [](const Held* a, const Held* b) {
    return file_dtype_bytes(a->dtype) > file_dtype_bytes(b->dtype);
  });
  std::vector<TensorInfo> infos;
  for (const Held* tensor : order) infos.push_back(*tensor);
  SafetensorsWriter writer(path, infos);
  for (const Held* tensor : order) writer.write(tensor->bytes.data(), tensor->num_bytes());
  writer.commit();
}

HandMade::HandMade(layers::Precision precision)
    : ctx_{backend::cpu().ops, backend::cpu().device, backend::cpu().device.stream_create(),
           layers::act_dtype(precision), layers::acc_dtype(precision)} {}

HandMade::~HandMade() { ctx_.device.stream_destroy(ctx_.stream); }

View HandMade::memory(DType dtype, Shape shape) {
  memory_.emplace_back(static_cast<size_t>(shape.size() * dtype_bytes(dtype)));
  return {memory_.back().data(), dtype, shape};
}

layers::Parameter& HandMade::add(const std::string& name, Shape shape, DType dtype) {
  auto& parameter = parameters_.emplace_back();
  parameter.name = name;
  parameter.shape = shape;
  parameter.dtype = dtype;
  parameter.value = memory(dtype, shape);
  list_.push_back(&parameter);
  return parameter;
}

layers::Parameter& HandMade::matrix(const std::string& name, Shape shape, bool trainable) {
  auto& parameter = add(name, shape, ctx_.act);
  parameter.trainable = trainable;
  if (trainable && ctx_.act != ctx_.acc) parameter.master = memory(ctx_.acc, shape);
  return parameter;
}

layers::Parameter& HandMade::vector(const std::string& name, Shape shape) { return add(name, shape, ctx_.acc); }

layers::Parameter& HandMade::table(const std::string& name, Shape shape) {
  auto& parameter = add(name, shape, DType::kI64);
  parameter.trainable = false;
  return parameter;
}

void HandMade::fill(int seed) {
  for (const auto& parameter : parameters_) {
    ++seed;
    for (const View& view : {parameter.master, parameter.value}) {
      for (int64_t i = 0; i < view.size(); ++i) {
        auto* at = static_cast<std::byte*>(view.raw()) + i * dtype_bytes(view.dtype);
        const double value = static_cast<double>((i * 7919 + seed * 104729) % 20011) / 10007 - 1;
        const int64_t expert = (i + seed) % 2;
        if (view.dtype == DType::kI64)
          convert_elements(at, FileDType::kI64, &expert, FileDType::kI64, 1);
        else
          convert_elements(at, file_dtype(view.dtype), &value, FileDType::kF64, 1);
      }
    }
  }
}

std::map<std::string, std::string> contents(const std::filesystem::path& dir) {
  std::map<std::string, std::string> out;
  const TensorDir tensors(dir);
  for (const auto& [tensor, file] : tensors.items())
    out[tensor->name] = tensor->to_string() + std::string(reinterpret_cast<const char*>(tensor->data),
                                                          static_cast<size_t>(tensor->num_bytes()));
  return out;
}

std::vector<double> values_of(const View& view) {
  std::vector<double> values(static_cast<size_t>(view.size()));
  if (view.dtype == DType::kI64)
    for (int64_t i = 0; i < view.size(); ++i)
      values[static_cast<size_t>(i)] = static_cast<double>(view.data<int64_t>()[i]);
  else
    convert_elements(values.data(), FileDType::kF64, view.raw(), file_dtype(view.dtype), view.size());
  return values;
}

}  // namespace temper::checkpoint

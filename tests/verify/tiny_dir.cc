#include "verify/tiny_dir.h"

#include <stdlib.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/philox.h"
#include "checkpoint/encoding.h"
#include "checkpoint/names.h"
#include "checkpoint/tensor_dir.h"
#include "model/model.h"

namespace temper::verify::test {
namespace {

using checkpoint::Encoding;
using checkpoint::FileDType;
using checkpoint::TensorInfo;

std::vector<int64_t> dims(const Shape& shape) {
  std::vector<int64_t> out;
  for (int i = 0; i < shape.rank(); ++i) out.push_back(shape[i]);
  return out;
}

Tensor tensor(const std::string& name, FileDType dtype, std::vector<int64_t> shape) {
  Tensor out;
  out.info.name = name, out.info.dtype = dtype, out.info.shape = std::move(shape);
  out.bytes.resize(static_cast<size_t>(out.info.num_bytes()));
  return out;
}

// The numbers of a stored tensor: norms and scales near 1, the rest around 0, of a size that keeps activations near 1.
std::vector<float> draw(const std::string& name, const std::vector<int64_t>& shape, uint64_t id) {
  const Philox random{7, RandomPurpose::kTest};
  int64_t count = 1;
  for (const int64_t dim : shape) count *= dim;
  const bool is_near_one = name.ends_with("norm.weight") || name.ends_with("_scale");
  const double scale = shape.size() < 2 ? 0.1 : 0.6 / std::sqrt(static_cast<double>(shape.back()) / 4);
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i)
    values.push_back(static_cast<float>((is_near_one ? 1 : 0) + scale * random.normal(id, static_cast<uint64_t>(i))));
  return values;
}

}  // namespace

TinyDir TinyDir::released() {
  TinyDir out;
  auto config = nlohmann::json::parse(read_file(fixture("official_spelling") / "config.json"));
  config["hidden_size"] = 64, config["moe_intermediate_size"] = 32, config["q_lora_rank"] = 32;
  config["head_dim"] = 16, config["o_lora_rank"] = 16, config["compress_ratios"] = {0, 4, 8, 0};
  config["num_nextn_predict_layers"] = 1, config["index_head_dim"] = 16, config["rope_theta"] = 10000.0;
  out.config_ = config.dump(2);
  const model::Config parsed = model::parse_config(out.config_, "config.json");
  model::ModelOptions options;
  options.max_tokens = 1;
  options.train = false;
  options.mtp = true;
  const model::Model model(parsed, options);
  uint64_t id = 0;
  for (const layers::Parameter* parameter : model.parameters()) {
    for (const auto& stored : stored_names(parameter->name, parameter->shape, checkpoint::NameStyle::kOfficial)) {
      const Shape part = part_of(View(nullptr, parameter->dtype, parameter->shape), stored.name).shape;
      const auto shape = dims(part);
      const std::string& name = stored.stored;
      if (name.ends_with("tid2eid")) {
        Tensor table = tensor(name, FileDType::kI64, shape);
        for (int64_t i = 0; i < part.size(); ++i)
          table.as<int64_t>()[i] = (i / 2 * 3 + i % 2) % parsed.n_routed_experts;
        out.tensors_[name] = table;
        continue;
      }
      const std::vector<float> values = draw(name, shape, ++id);
      const auto dtype = checkpoint::release_dtype(parameter->name);
      if (dtype == checkpoint::ReleaseDType::kFp8 || dtype == checkpoint::ReleaseDType::kFp4) {
        const bool is_fp8 = dtype == checkpoint::ReleaseDType::kFp8;
        const Encoding encoding = is_fp8 ? Encoding::kFp8 : Encoding::kFp4;
        Tensor codes =
            tensor(name, is_fp8 ? FileDType::kF8E4M3 : FileDType::kI8, checkpoint::stored_shape(encoding, shape));
        const std::string scale_name = checkpoint::scale_name(name);
        Tensor scales = tensor(scale_name, FileDType::kF8E8M0, checkpoint::scale_shape(encoding, shape));
        const bool done =
            is_fp8 ? encode_fp8(values.data(), shape[0], shape[1], FileDType::kF8E8M0, codes.bytes.data(),
                                scales.bytes.data())
                   : checkpoint::encode_fp4(values.data(), shape[0], shape[1], codes.bytes.data(), scales.bytes.data());
        CHECK(done, name);
        out.tensors_[name] = codes, out.tensors_[scale_name] = scales;
        continue;
      }
      Tensor plain = tensor(name, FileDType::kF32, shape);
      std::memcpy(plain.bytes.data(), values.data(), plain.bytes.size());
      out.tensors_[name] = plain;
    }
  }
  return out;
}

TinyDir TinyDir::read(const std::filesystem::path& dir) {
  TinyDir out;
  out.config_ = read_file(dir / "config.json");
  const checkpoint::TensorDir tensors(dir);
  for (const auto& item : tensors.items()) {
    Tensor& tensor = out.tensors_[item.tensor->name];
    tensor.info = *item.tensor;
    tensor.bytes.assign(item.tensor->data, item.tensor->data + item.tensor->num_bytes());
  }
  return out;
}

void TinyDir::write(const std::filesystem::path& dir) const {
  std::filesystem::create_directories(dir);
  std::vector<const Tensor*> order;
  for (const auto& [name, tensor] : tensors_) order.push_back(&tensor);
  std::stable_sort(order.begin(), order.end(), [](const Tensor* a, const Tensor* b) {
    return file_dtype_bytes(a->info.dtype) > file_dtype_bytes(b->info.dtype);
  });
  std::vector<TensorInfo> infos;
  for (const Tensor* tensor : order) infos.push_back(tensor->info);
  checkpoint::SafetensorsWriter writer(dir / "model.safetensors", infos);
  for (const Tensor* tensor : order) writer.write(tensor->bytes.data(), tensor->info.num_bytes());
  writer.commit();
  write_file_atomically(dir / "config.json", config_);
}

std::filesystem::path fixture(const std::string& name) {
  return std::filesystem::path(TEMPER_SOURCE_DIR) / "tests/fixtures/v4" / name;
}

}  // namespace temper::verify::test

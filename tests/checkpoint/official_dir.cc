#include "checkpoint/official_dir.h"

#include <cmath>

#include "checkpoint/convert.h"
#include "checkpoint/small_floats.h"

namespace temper::checkpoint {

OfficialDir::OfficialDir(const OfficialStyle& style) : style_(style) {
  const std::string layer = "model.layers.0.";
  plain("embed.weight", "model.embed_tokens.weight", FileDType::kBF16, {6, 64});
  plain("head.weight", "lm_head.weight", FileDType::kBF16, {6, 64});
  plain("layers.0.attn.attn_sink", layer + "self_attn.sinks", FileDType::kF32, {3});
  plain("layers.0.attn.kv_norm.weight", layer + "self_attn.kv_norm.weight", FileDType::kBF16, {64});
  quantised(Encoding::kFp8, "layers.0.attn.wq_a.weight", layer + "self_attn.q_a_proj.weight", 130, 64);
  quantised(Encoding::kFp8, "layers.0.attn.wo_a.weight", layer + "self_attn.o_a_proj.weight", 4, 257);
  plain("layers.0.ffn.gate.weight", layer + "mlp.gate.weight", FileDType::kBF16, {2, 64});
  plain("layers.0.ffn.gate.tid2eid", layer + "mlp.gate.tid2eid", FileDType::kI64, {6, 1});
  for (const char* expert : {"0", "1"})
    for (const char* matrix : {"w1", "w3"})
      quantised(Encoding::kFp4, std::string("layers.0.ffn.experts.") + expert + "." + matrix + ".weight",
                layer + "mlp.experts.gate_up_proj", 32, 64);
  for (const char* expert : {"0", "1"})
    quantised(Encoding::kFp4, std::string("layers.0.ffn.experts.") + expert + ".w2.weight",
              layer + "mlp.experts.down_proj", 64, 32);
  if (!style.mtp) return;
  quantised(Encoding::kFp8, "mtp.0.e_proj.weight", "mtp.0.e_proj.weight", 64, 64);
  plain("mtp.0.enorm.weight", "mtp.0.enorm.weight", FileDType::kBF16, {64});
  quantised(Encoding::kFp4, "mtp.0.ffn.experts.0.w2.weight", "mtp.0.mlp.experts.down_proj", 64, 32);
}

uint32_t OfficialDir::next() { return (state_ = state_ * 1664525u + 1013904223u) >> 8; }

void OfficialDir::plain(const std::string& name, const std::string& parameter, FileDType dtype,
                        std::vector<int64_t> shape) {
  Held& tensor = tensors_.emplace_back(style_.prefix + name, dtype, std::move(shape));
  auto& values = values_[parameter];
  const int64_t width = file_dtype_bytes(dtype);
  for (int64_t i = 0; i < tensor.size(); ++i) {
    const int64_t whole = next() % 2;
    const float value = (static_cast<float>(next() % 255) - 127) / 64;  // exact in bf16
    std::byte* at = tensor.bytes.data() + i * width;
    if (dtype == FileDType::kI64)
      convert_elements(at, dtype, &whole, FileDType::kI64, 1);
    else
      convert_elements(at, dtype, &value, FileDType::kF32, 1);
    values.push_back(dtype == FileDType::kI64 ? static_cast<double>(whole) : value);
  }
}

void OfficialDir::quantised(Encoding encoding, const std::string& name, const std::string& parameter, int64_t rows,
                            int64_t columns) {
  if (encoding == Encoding::kFp8 ? !style_.fp8 : !style_.fp4)
    return plain(name, parameter, FileDType::kBF16, {rows, columns});
  const bool is_fp8 = encoding == Encoding::kFp8, is_power = !is_fp8 || style_.scale_dtype == FileDType::kF8E8M0;
  const FileDType dtype = is_fp8 ? FileDType::kF8E4M3 : FileDType::kI8;
  const std::string stem = style_.prefix + name.substr(0, name.size() - std::string("weight").size());
  Held& weight = tensors_.emplace_back(style_.prefix + name, dtype, stored_shape(encoding, {rows, columns}));
  Held& scale = tensors_.emplace_back(stem + style_.scale_suffix, is_power ? FileDType::kF8E8M0 : FileDType::kF32,
                                      scale_shape(encoding, {rows, columns}));
  std::vector<double> scales;
  for (size_t i = 0; i < static_cast<size_t>(scale.size()); ++i) {
    const float odd = 0.001f + static_cast<float>(next() % 1000) * 1e-5f;
    if (is_power)
      scale.at(i) = static_cast<uint8_t>(115 + next() % 8);
    else
      scale.set_f32(i, odd);
    scales.push_back(is_power ? std::ldexp(1.0, scale.at(i) - 127) : odd);
  }
  for (size_t i = 0; i < weight.bytes.size(); ++i) {
    weight.at(i) = static_cast<uint8_t>(next());
    if (is_fp8 && (weight.at(i) & 0x7F) == 0x7F) weight.at(i) = 0x3C;
  }
  auto& values = values_[parameter];
  const int64_t width = is_fp8 ? kFp8Block : kFp4Block, height = is_fp8 ? kFp8Block : 1;
  const int64_t num_blocks = (columns + width - 1) / width;
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) {
      const int64_t element = i * columns + j;
      const uint8_t byte = weight.at(static_cast<size_t>(is_fp8 ? element : element / 2));
      const float code = is_fp8 ? e4m3_to_float(byte) : e2m1_to_float(j % 2 == 0 ? byte & 15 : byte >> 4);
      const double product = code * scales[static_cast<size_t>(i / height * num_blocks + j / width)];
      values.push_back(static_cast<float>(product));
    }
}

void OfficialDir::write(const std::filesystem::path& dir) const {
  put_tensors(dir / "model.safetensors", tensors_);
  put(dir / "config.json", R"({"model_type": "deepseek_v4", "expert_dtype": "fp4", )"
                           R"("quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}})");
}

Held& OfficialDir::tensor(const std::string& name) {
  for (Held& tensor : tensors_)
    if (tensor.name == style_.prefix + name) return tensor;
  CHECK(false, name);
}

void OfficialDir::remove(const std::string& name) {
  std::erase_if(tensors_, [&](const Held& tensor) { return tensor.name == style_.prefix + name; });
}

OfficialModel::OfficialModel(layers::Precision precision, bool mtp) : HandMade(precision) {
  const std::string layer = "model.layers.0.";
  matrix("model.embed_tokens.weight", {6, 64});
  vector(layer + "self_attn.sinks", {3});
  vector(layer + "self_attn.kv_norm.weight", {64});
  matrix(layer + "self_attn.q_a_proj.weight", {130, 64});
  matrix(layer + "self_attn.o_a_proj.weight", {4, 257}, false);
  matrix(layer + "mlp.gate.weight", {2, 64});
  table(layer + "mlp.gate.tid2eid", {6, 1});
  matrix(layer + "mlp.experts.gate_up_proj", {2, 64, 64});
  matrix(layer + "mlp.experts.down_proj", {2, 64, 32});
  matrix("lm_head.weight", {6, 64});
  if (!mtp) return;
  matrix("mtp.0.e_proj.weight", {64, 64});
  vector("mtp.0.enorm.weight", {64});
  matrix("mtp.0.mlp.experts.down_proj", {1, 64, 32});
}

}  // namespace temper::checkpoint
